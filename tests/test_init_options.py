"""The parameters of ``init``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from miniray import init_options as i
from miniray.options import RESOURCE_UNITS, set_strict_mode, strict_mode


@pytest.fixture(autouse=True)
def relaxed() -> Iterator[None]:
    before = strict_mode()
    set_strict_mode(False)
    yield
    set_strict_mode(before)


def test_defaults_are_rays() -> None:
    values = i.check_init_options({})
    assert values["address"] is None and values["dashboard_host"] == "127.0.0.1"
    assert values["configure_logging"] is True and values["logging_level"] == "info"
    assert values["ignore_reinit_error"] is False and values["_temp_dir"] is None


def test_unknown_parameters_are_told() -> None:
    with pytest.raises(RuntimeError, match=r"^Unknown keyword argument\(s\): foo, _bar$"):
        i.check_init_options({"foo": 1, "num_cpus": 1, "_bar": 2})


def test_sizes_are_text_or_numbers_and_only_numbers_in_strict_mode() -> None:
    values = i.check_init_options({"object_store_memory": "2GiB", "memory": "4GB", "_memory": 1.5e9})
    assert (values["object_store_memory"], values["memory"], values["_memory"]) == (2 * 2**30, 4 * 10**9, 15 * 10**8)
    set_strict_mode(True)
    with pytest.raises(TypeError):
        i.check_init_options({"object_store_memory": "2GiB"})
    with pytest.raises(RuntimeError, match=r"Unknown keyword argument\(s\): memory"):
        i.check_init_options({"memory": 10**9})


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"namespace": 1}, TypeError, "namespace must be None or a string."),
        ({"namespace": ""}, ValueError, '"" is not a valid namespace. Pass None to not specify a namespace.'),
        (
            {"object_store_memory": 1},
            ValueError,
            "Attempting to cap object store memory usage at 1 bytes, but the minimum allowed is 78643200 bytes.",
        ),
        ({"_temp_dir": "rel"}, ValueError, "temp_dir must be absolute path or None."),
        ({"_system_config": 1}, TypeError, "The _system_config must be a dict."),
        ({"address": 1}, TypeError, "The parameter 'address' of init must be str or None, but received type"),
        ({"resources": "x"}, TypeError, "The parameter 'resources' of init must be dict or None"),
        ({"num_gpus": "x"}, TypeError, "The parameter 'num_gpus' of init must be int or float or None"),
        ({"object_store_memory": "much"}, ValueError, "'much' is not a size"),
        (
            {"resources": {"CPU": 1}},
            AssertionError,
            "`CPU` cannot be a custom resource because it is one of the default",
        ),
    ],
    ids=str,
)
def test_wrong_values_are_refused(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        i.check_init_options(given)
    assert text in str(caught.value)


def test_resources_of_a_node_are_whole_and_not_negative() -> None:
    assert i.check_node_resources({"CPU": 2, "GPU": 0, "memory": 10**9, "a": 1.0}) == {
        "CPU": 2 * RESOURCE_UNITS,
        "memory": 10**9 * RESOURCE_UNITS,
        "a": RESOURCE_UNITS,
    }
    with pytest.raises(ValueError) as caught:
        i.check_node_resources({"CPU": -1})
    assert str(caught.value) == "Resource quantities must be nonnegative. Violated by resource 'CPU' in {'CPU': -1}."
    with pytest.raises(ValueError) as caught:
        i.check_node_resources({"a": 1.5})
    assert str(caught.value) == "Resource quantities must all be whole numbers. Violated by resource 'a' in {'a': 1.5}."
    with pytest.raises(AssertionError, match=r"CPU \(<class 'str'>\): x"):
        i.check_node_resources({"CPU": "x"})
