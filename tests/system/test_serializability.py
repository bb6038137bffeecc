"""The report on what cannot be pickled: Ray's words, checked against the real Ray when they were written."""

from __future__ import annotations

import threading
from io import StringIO
from typing import Any

from miniray.system.serializability import inspect_serializability

lock = threading.Lock()


class Holder:
    def __init__(self) -> None:
        self.inner = lock


def function_that_uses_the_global() -> Any:
    def inner() -> Any:  # nested, so that it is pickled by value
        return lock

    return inner


def report(value: Any, **options: Any) -> tuple[bool, list[str], list[str]]:
    file = StringIO()
    fine, failures = inspect_serializability(value, print_file=file, **options)
    return fine, sorted(" -> ".join(failure.path) for failure in failures), file.getvalue().splitlines()


def test_a_value_that_can_be_pickled_is_reported_in_three_lines() -> None:
    fine, paths, lines = report(1)
    assert fine
    assert paths == []
    assert lines == ["=" * 29, "Checking Serializability of 1", "=" * 29]


def test_the_attribute_at_fault_is_named() -> None:
    fine, paths, lines = report(Holder())
    assert not fine
    assert paths == ["inner"]
    assert f"    Serializing 'inner' {lock}..." in lines


def test_the_global_at_fault_is_named() -> None:
    _, paths, lines = report(function_that_uses_the_global())
    assert paths == ["lock"]
    assert "Inspecting closure of 'function_that_uses_the_global.<locals>.inner':" in lines
    assert "Detected 1 global variables. Checking serializability..." in lines


def test_the_nonlocal_at_fault_is_named_under_the_given_name() -> None:
    holder = Holder()
    _, paths, lines = report(lambda: holder, name="task")
    assert paths == ["task -> holder -> inner"]
    assert "Detected 1 nonlocal variables. Checking serializability..." in lines


def test_the_search_ends_at_its_depth() -> None:
    holder = Holder()
    assert report(lambda: holder, depth=1)[1] == ["holder"]
    assert report(lambda: holder, depth=0)[1] == [""]


def test_an_object_without_a_culprit_inside_is_one_itself() -> None:
    _, paths, lines = report([lock])
    assert paths == [""]
    assert lines[4].startswith("WARNING: Did not find non-serializable object in list instance. ")
    assert lines[-1] == lines[0]


def test_a_rule_is_at_most_80_wide() -> None:
    assert report("x" * 100)[2][0] == "=" * 80
