"""The parameters of ``init``: names, defaults, types, and Ray's errors for what it refuses.

``check_init_options`` is all that ``init`` calls. Resources are checked as Ray checks them, when the node's total
is known: ``check_node_resources``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from miniray.options import RESOURCE_UNITS, check_namespace, parse_size, strict_mode

MINIMUM_OBJECT_STORE_MEMORY = 75 * 1024 * 1024
DEFAULT_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")

_NONE = type(None)


class InitOption(NamedTuple):
    """One parameter of ``init``."""

    name: str
    types: tuple[type, ...] | None
    """What it may be; None where it is looked at later, by its part of the system."""
    default: Any = None
    extension: tuple[type, ...] = ()
    """What miniray takes and Ray refuses; refused in strict mode."""


_INT = (int, _NONE)
_STR = (str, _NONE)

INIT_OPTIONS = (
    InitOption("address", _STR),
    InitOption("num_cpus", None),  # by check_node_resources, whose words for this are Ray's
    InitOption("num_gpus", (int, float, _NONE)),
    InitOption("resources", (dict, _NONE)),
    InitOption("labels", (dict, _NONE)),
    InitOption("object_store_memory", (int, float, _NONE), extension=(str,)),
    InitOption("local_mode", None, False),
    InitOption("ignore_reinit_error", None, False),
    InitOption("include_dashboard", None),
    InitOption("dashboard_host", (str,), "127.0.0.1"),
    InitOption("dashboard_port", _INT),
    InitOption("job_config", None),
    InitOption("configure_logging", None, True),
    InitOption("logging_level", (int, str), "info"),
    InitOption("logging_format", _STR),
    InitOption("logging_config", None),
    InitOption("log_to_driver", None),
    InitOption("namespace", None),
    InitOption("runtime_env", (dict, _NONE)),
    InitOption("enable_resource_isolation", None, False),
    InitOption("cgroup_path", _STR),
    InitOption("system_reserved_cpu", (int, float, _NONE)),
    InitOption("system_reserved_memory", _INT),
    InitOption("proxy_server_url", _STR),
)
"""In the order of Ray's signature."""

PRIVATE_INIT_OPTIONS = (
    InitOption("_enable_object_reconstruction", None, False),
    InitOption("_plasma_directory", _STR),
    InitOption("_node_ip_address", _STR),
    InitOption("_driver_object_store_memory", _INT),
    InitOption("_memory", (int, float, _NONE), extension=(str,)),
    InitOption("_redis_username", _STR),
    InitOption("_redis_password", _STR),
    InitOption("_temp_dir", _STR),
    InitOption("object_spilling_directory", _STR),
    InitOption("_metrics_export_port", _INT),
    InitOption("_system_config", None),
    InitOption("_tracing_startup_hook", None),
    InitOption("_node_name", _STR),
    InitOption("_skip_env_hook", None, False),
)
"""What Ray takes in its ``**kwargs``."""

EXTENSION_INIT_OPTIONS = (
    InitOption("memory", (int, float, _NONE), extension=(str,)),
    InitOption("engine", _STR),
    InitOption("task_timeout_s", (int, float, _NONE)),
)
"""What Ray does not know at all; refused in strict mode."""

_SIZES = ("object_store_memory", "_memory", "memory")
_KNOWN = {option.name: option for option in INIT_OPTIONS + PRIVATE_INIT_OPTIONS + EXTENSION_INIT_OPTIONS}
_EXTENSIONS = frozenset(option.name for option in EXTENSION_INIT_OPTIONS)


def check_init_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of ``init``, those given and the defaults of the others, with sizes as bytes.

    Args:
        given: the arguments, by name.

    Raises:
        RuntimeError: an unknown parameter.
        TypeError, ValueError: a value of a wrong type, or out of range.
    """
    check_names(given)
    strict = strict_mode()
    values: dict[str, Any] = {name: option.default for name, option in _KNOWN.items()}
    for name, value in given.items():
        option = _KNOWN[name]
        if option.extension and isinstance(value, option.extension) and not strict:
            value = parse_size(str(value))
        if option.types is not None and not isinstance(value, option.types):
            expected = " or ".join("None" if kind is _NONE else kind.__name__ for kind in option.types)
            raise TypeError(f"The parameter '{name}' of init must be {expected}, but received type {type(value)}")
        values[name] = value
    check_namespace(values["namespace"])
    if values["_temp_dir"] is not None and not os.path.isabs(values["_temp_dir"]):
        raise ValueError("temp_dir must be absolute path or None.")
    if values["_system_config"] is not None and not isinstance(values["_system_config"], dict):
        raise TypeError("The _system_config must be a dict.")
    for name in _SIZES:
        if values[name] is not None:
            values[name] = int(values[name])
    check_object_store_memory(values["object_store_memory"])
    if values["resources"]:
        check_custom_resources(values["resources"])
    return values


def check_names(given: Mapping[str, Any]) -> None:
    """RuntimeError, in Ray's words, for parameters that `init` does not have."""
    strict = strict_mode()
    unknown = [name for name in given if name not in _KNOWN or (strict and name in _EXTENSIONS)]
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")


def check_object_store_memory(size: int | None) -> None:
    """ValueError, in Ray's words, for an object store below the minimum."""
    if size is not None and size < MINIMUM_OBJECT_STORE_MEMORY:
        raise ValueError(
            f"Attempting to cap object store memory usage at {size} bytes, but the minimum allowed is "
            f"{MINIMUM_OBJECT_STORE_MEMORY} bytes."
        )


def check_custom_resources(resources: Mapping[str, Any]) -> None:
    """AssertionError, in Ray's words, if a default resource is given as a custom one."""
    for name in DEFAULT_RESOURCES:
        if name in resources:
            keyword = {"CPU": "num_cpus", "GPU": "num_gpus"}.get(name, name)
            flag = keyword.replace("_", "-")
            raise AssertionError(
                f"{resources} -> `{name}` cannot be a custom resource because it is one of the default resources "
                f"({set(DEFAULT_RESOURCES)}). Use `{keyword}` instead. For example, use `ray start --{flag}=1` "
                f"instead of `ray start --resources={{'{name}': 1}}`"
            )


def check_node_resources(resources: Mapping[str, Any]) -> dict[str, int]:
    """A node's resources in units of 1/10,000, checked as Ray checks them; zeros are dropped.

    Args:
        resources: all quantities of the node, by name: CPU, GPU, memory, object_store_memory and custom ones.
    """
    units: dict[str, int] = {}
    for name, quantity in resources.items():
        assert isinstance(quantity, (int, float)), f"{name} ({type(quantity)}): {quantity}"
        if quantity != int(quantity):
            raise ValueError(
                f"Resource quantities must all be whole numbers. Violated by resource '{name}' in {dict(resources)}."
            )
        if quantity < 0:
            raise ValueError(
                f"Resource quantities must be nonnegative. Violated by resource '{name}' in {dict(resources)}."
            )
        if quantity:
            units[name] = int(quantity) * RESOURCE_UNITS
    return units
