"""`log_once`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from miniray.util import debug


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(debug, "_disabled", False)
    monkeypatch.setattr(debug, "_periodic", False)
    debug.reset_log_once()
    yield
    debug.reset_log_once()


def test_each_key_is_true_once() -> None:
    assert [debug.log_once("a"), debug.log_once("a"), debug.log_once("b")] == [True, False, True]


def test_keys_can_be_forgotten() -> None:
    debug.log_once("a")
    debug.log_once("b")
    debug.reset_log_once("a")
    assert [debug.log_once("a"), debug.log_once("b")] == [True, False]


def test_it_can_be_turned_off() -> None:
    debug.disable_log_once_globally()
    assert not debug.log_once("a")


def test_a_minute_later_the_keys_are_forgotten_when_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    debug.enable_periodic_logging()
    debug.log_once("a")
    monkeypatch.setattr(debug, "_last_logged", 0.0)
    assert [debug.log_once("a"), debug.log_once("a")] == [False, True]
