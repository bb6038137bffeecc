"""All options of tasks and actors, in one table; and what follows from them: checks, merging, resource requests.

Options are checked once, when a function or class is decorated and in ``.options()``, never per call. Errors are
Ray's, word for word, because programs match on them. What miniray takes beyond Ray (column ``extension``) is
refused in strict mode: see ``strict_mode``. The parameters of ``init`` are in ``init_options``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

from miniray.label_selectors import check_fallback_strategy, check_label_selector

RESOURCE_UNITS = 10_000
"""Resources are counted in integers of 1/10,000: no sum of fractions ever drifts."""

_NONE = type(None)
_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the 4 ms that importing inspect takes

# ---- strict mode ----

_strict: bool | None = None


def strict_mode() -> bool:
    """Whether what Ray refuses is refused: on under the alias ``import ray``, off under miniray's own name."""
    global _strict
    if _strict is None:
        _strict = means_yes(os.environ.get("MINIRAY_STRICT") or os.environ.get("MINIRAY_AS_RAY", "0"))
    return _strict


def means_yes(text: str) -> bool:
    """Whether an environment variable with this value switches something on."""
    return text.strip().lower() in ("1", "true", "yes", "on")


def set_strict_mode(strict: bool) -> None:
    """Set the flag of this process; before the first decoration, and carried on to workers by the runtime."""
    global _strict
    _strict = strict


# ---- sizes ----

_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "kib": 2**10,
    "m": 10**6, "mb": 10**6, "mib": 2**20,
    "g": 10**9, "gb": 10**9, "gib": 2**30,
    "t": 10**12, "tb": 10**12, "tib": 2**40,
}  # fmt: skip


def parse_size(size: int | float | str) -> int:
    """Bytes of a size: a number of bytes, or text such as "16GB" (16e9), "2GiB", "512MB", "1.5g" in any case."""
    if isinstance(size, (int, float)):
        return int(size)
    text = size.strip().lower().replace("_", "")
    number = text.rstrip("bikmgt \t")
    factor = _SIZE_UNITS.get(text[len(number) :].strip())
    try:
        value = float(number) * factor if factor is not None else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{size!r} is not a size: give bytes as a number, or text such as '16GB', '2GiB' or '512MB'.")
    # Whole numbers stay exact beyond 2**53.
    return int(number) * int(factor or 1) if number.isdigit() else int(value)


# ---- checks of one value ----


def _check_quantity(name: str, quantity: Any) -> None:
    if quantity is None:
        return
    if quantity < 0:
        raise ValueError(f"The quantity of resource {name} cannot be negative")
    if isinstance(quantity, float) and quantity != 0.0 and int(quantity * RESOURCE_UNITS) == 0:
        raise ValueError(f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001")
    whole = {
        "neuron_cores": "{name} resource quantity must be whole numbers. ",
        "HPU": "{name} resource quantity must be whole numbers. ",
        "RBLN": "{name} resource quantity must be whole numbers. ",
        "FURIOSA": "{name} resource quantity must be a whole number. Furiosa NPUs do not support fractional "
        "resource sharing. ",
    }.get(name)
    if whole and isinstance(quantity, float) and not quantity.is_integer():
        raise ValueError(f"{whole.format(name=name)}The specified quantity {quantity} is invalid.")
    if name == "TPU" and quantity not in (1, 2, 4, 8):
        raise ValueError(
            f"The number of requested 'TPU' was set to {quantity} which is not a supported chip configuration. "
            "Supported configs: (1, 2, 4, 8)"
        )


def _check_resources(name: str, resources: dict[str, Any] | None) -> None:
    if resources is None:
        return
    if "CPU" in resources or "GPU" in resources:
        raise ValueError("Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword")
    for resource, quantity in resources.items():
        if quantity is None:
            raise TypeError("'<' not supported between instances of 'NoneType' and 'int'")
        _check_quantity(resource, quantity)


def _check_count(name: str, value: int | None) -> None:
    if value is not None and value < 0:
        raise ValueError(f"The keyword '{name}' only accepts None, 0 or a positive integer.")


def _check_count_or_infinity(name: str, value: int | None) -> None:
    if value is not None and value < -1:
        raise ValueError(
            f"The keyword '{name}' only accepts None, 0, -1 or a positive integer, where -1 represents infinity."
        )


def _check_num_returns(name: str, value: Any) -> None:
    if value in (None, "dynamic", "streaming"):
        return
    if not value >= 0:
        raise ValueError(
            "Default None. When None is passed, The default value is 1 for a task and actor task, and 'streaming' for "
            "generator tasks and generator actor tasks. The keyword 'num_returns' only accepts None, a non-negative "
            "integer, 'streaming' (for generators), or 'dynamic'. 'dynamic' flag will be deprecated in the future, and "
            "it is recommended to use 'streaming' instead."
        )


def _check_retry_exceptions(name: str, value: Any) -> None:
    if not isinstance(value, bool) and not all(
        isinstance(item, type) and issubclass(item, Exception) for item in value
    ):
        raise ValueError("retry_exceptions must be either a boolean or a list of exceptions")


def _check_backpressure(name: str, value: int | None) -> None:
    if value == 0:
        raise ValueError(
            "_generator_backpressure_num_objects=0 is not allowed. Use a value > 0. If the value is equal to 1, the "
            "behavior is identical to Python generator (generator 1 object whenever `next` is called). Use -1 to "
            "disable this feature. "
        )


def _check_actor_backpressure(name: str, value: int | None) -> None:
    if value is not None and value != -1 and value <= 0:
        raise ValueError(
            "_actor_generator_backpressure_num_objects must be > 0 to cap the actor's total unconsumed generator "
            f"objects, or -1 to disable. Got {value}."
        )


def _check_objects_per_yield(name: str, value: int | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(
            "_num_objects_per_yield is a private streaming generator option that must be set to a positive integer."
        )


def _check_no_object_store_memory(name: str, value: int | None) -> None:
    if value is not None:
        raise ValueError("Setting 'object_store_memory' is not implemented for tasks")


def _check_actor_object_store_memory(name: str, value: int | None) -> None:
    _check_count(name, value)
    if value is not None:
        import warnings  # rarely needed

        warnings.warn(
            "Setting 'object_store_memory' for actors is deprecated since it doesn't actually reserve the required "
            "object store memory.",
            DeprecationWarning,
            stacklevel=5,
        )


def _check_timeout(name: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"The keyword '{name}' only accepts None or a positive number of seconds.")


def _check_lifetime(name: str, value: str | None) -> None:
    if value not in (None, "detached", "non_detached"):
        raise ValueError("actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'.")


# ---- the table ----


class Option(NamedTuple):
    """One row: an option, for whom it is, what it takes."""

    name: str
    kind: str
    """"task", "actor", or "both"."""
    types: tuple[Any, ...]
    """Classes, or dotted names of Ray's classes that stand in modules above this one."""
    default: Any = None
    check: Callable[[str, Any], None] | None = None
    in_options: bool = True
    """Whether ``.options()`` takes it too."""
    extension: tuple[Any, ...] = ()
    """Classes that miniray takes and Ray refuses; refused in strict mode."""


_NUMBER = (float, int, _NONE)
_INT = (int, _NONE)
_STR = (str, _NONE)
_DICT = (dict, _NONE)
_BOOL = (bool, _NONE)
_STRATEGY = "ray.util.scheduling_strategies."

OPTIONS = (
    Option("label_selector", "both", _DICT, None, lambda name, value: check_label_selector(value)),
    Option("fallback_strategy", "both", (list, _NONE), None, lambda name, value: check_fallback_strategy(value)),
    Option("accelerator_type", "both", _STR),
    Option("memory", "both", _NUMBER, None, _check_quantity, extension=(str,)),
    Option("name", "both", _STR),
    Option("num_cpus", "task", _NUMBER, 1, _check_quantity),
    Option("num_cpus", "actor", _NUMBER, None, _check_quantity),
    Option("num_gpus", "both", _NUMBER, None, _check_quantity),
    Option("object_store_memory", "task", _INT, None, _check_no_object_store_memory),
    Option("object_store_memory", "actor", _INT, None, _check_actor_object_store_memory, extension=(str,)),
    Option("placement_group", "both", (_NONE, str, "ray.util.placement_group.PlacementGroup"), "default"),
    Option("placement_group_bundle_index", "both", (int,), -1),
    Option("placement_group_capture_child_tasks", "both", _BOOL),
    Option("resources", "both", _DICT, None, _check_resources),
    Option("runtime_env", "both", _DICT),
    Option(
        "scheduling_strategy",
        "both",
        (
            _NONE,
            str,
            _STRATEGY + "PlacementGroupSchedulingStrategy",
            _STRATEGY + "NodeAffinitySchedulingStrategy",
            _STRATEGY + "NodeLabelSchedulingStrategy",
        ),
    ),
    Option("enable_task_events", "both", (bool,), True),
    Option("_labels", "both", _DICT),
    Option("max_calls", "task", _INT, 0, _check_count, in_options=False),
    Option("max_retries", "task", _INT, 3, _check_count_or_infinity),
    Option("num_returns", "task", (int, str, _NONE), None, _check_num_returns),
    Option("retry_exceptions", "task", (bool, list, tuple), False, _check_retry_exceptions),
    Option("_generator_backpressure_num_objects", "task", _INT, None, _check_backpressure),
    Option("_num_objects_per_yield", "task", _INT, 1, _check_objects_per_yield),
    Option("concurrency_groups", "actor", (list, dict, _NONE), in_options=False),
    Option("enable_tensor_transport", "actor", _BOOL),
    Option("lifetime", "actor", _STR, None, _check_lifetime),
    Option("max_concurrency", "actor", _INT, None, _check_count),
    Option("max_restarts", "actor", _INT, 0, _check_count_or_infinity),
    Option("max_task_retries", "actor", _INT, 0, _check_count_or_infinity),
    Option("max_pending_calls", "actor", _INT, -1, _check_count_or_infinity),
    Option("namespace", "actor", _STR),
    Option("get_if_exists", "actor", (bool,), False),
    Option("allow_out_of_order_execution", "actor", _BOOL),
    Option("_actor_generator_backpressure_num_objects", "actor", _INT, None, _check_actor_backpressure),
)

TASK_OPTIONS = {option.name: option for option in OPTIONS if option.kind != "actor"}
ACTOR_OPTIONS = {option.name: option for option in OPTIONS if option.kind != "task"}

EXTENSION_OPTIONS = {
    option.name: option
    for option in (
        # Ray took it for tags of a library on top; by 2.60 it refuses it.
        Option("_metadata", "both", _DICT),
        # Seconds that a task, or a call of the actor, may run.
        Option("timeout_s", "both", _NUMBER, None, _check_timeout),
    )
}
"""What Ray refuses altogether; refused in strict mode."""

REMOTE_ARGUMENTS = dict.fromkeys(
    ["max_calls", "max_retries", "num_cpus", "num_returns", "object_store_memory", "retry_exceptions"]
    + [option.name for kind in ("task", "actor", "both") for option in OPTIONS if option.kind == kind]
)
"""What ``@remote(...)`` takes, in the order in which Ray tells it."""

METHOD_OPTIONS = (
    "num_returns",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
    "enable_task_events",
    "tensor_transport",
)
"""What ``@method(...)`` takes."""

CALL_OPTIONS = frozenset((*METHOD_OPTIONS, "name", "_labels"))
"""What ``handle.method.options(...)`` takes."""


def _spelled(types: Iterable[Any]) -> str:
    names = [f"<class '{entry}'>" if isinstance(entry, str) else str(entry) for entry in types]
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def _is_instance(value: Any, types: Iterable[Any]) -> bool:
    for entry in types:
        if isinstance(entry, str):
            # The class lives in a row above this one; it is known by its name, as ray.util... or miniray.util...
            module, _, name = entry.removeprefix("ray").rpartition(".")
            if any(base.__name__ == name and base.__module__.endswith(module) for base in type(value).__mro__):
                return True
        elif isinstance(value, entry):
            return True
    return False


def _validate(options: Mapping[str, Any], table: Mapping[str, Option], whose: str, in_options: bool) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in options.items():
        option = table.get(name)
        if option is None and not strict_mode():
            option = EXTENSION_OPTIONS.get(name)
        if option is None:
            raise ValueError(f"Invalid option keyword {name} for {whose}. Valid ones are {list(table)}.")
        if option.extension and isinstance(value, option.extension) and not strict_mode():
            value = parse_size(value)
        if not _is_instance(value, option.types):
            raise TypeError(
                f"The type of keyword '{name}' must be {_spelled(option.types)}, but received type {type(value)}"
            )
        if option.check is not None:
            option.check(name, value)
        checked[name] = value
    if in_options:
        for name in checked:
            if name in table and not table[name].in_options:
                raise ValueError(f"Setting '{name}' is not supported in '.options()'.")
    return checked


def validate_task_options(options: Mapping[str, Any], *, in_options: bool) -> dict[str, Any]:
    """The options of a remote function, checked, with sizes as bytes.

    Args:
        options: as the user gave them.
        in_options: whether they come from ``.options()`` and not from the decorator.

    Raises:
        ValueError, TypeError: with Ray's texts.
    """
    return _validate(options, TASK_OPTIONS, "remote functions", in_options)


def validate_actor_options(options: Mapping[str, Any], *, in_options: bool) -> dict[str, Any]:
    """The options of an actor class, checked; as ``validate_task_options``."""
    checked = _validate(options, ACTOR_OPTIONS, "actors", in_options)
    if checked.get("get_if_exists") and not checked.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")
    return checked


def validate_method_options(options: Mapping[str, Any], *, is_generator: bool = False) -> dict[str, Any]:
    """The keyword arguments of ``@method(...)``, checked.

    Args:
        options: as the user gave them.
        is_generator: whether the decorated method is a generator function.
    """
    check_method_options(options)
    num_returns = options.get("num_returns")
    if isinstance(num_returns, int) and num_returns < 0:
        raise ValueError(f"num_returns must be >= 0, but got {num_returns}.")
    if num_returns == "streaming" and not is_generator:
        raise no_generator(num_returns)
    return dict(options)


def no_generator(num_returns: Any) -> ValueError:
    """The error, in Ray's words, of "streaming" or "dynamic" for a function that does not yield."""
    return ValueError(
        f"num_returns='{num_returns}' can only be used with generator functions (functions that use 'yield'). The "
        "decorated function is not a generator function."
    )


def check_method_options(options: Mapping[str, Any]) -> None:
    """AssertionError, in Ray's words, for an option that ``@method`` does not take."""
    for name in options:
        if name not in METHOD_OPTIONS and (strict_mode() or name not in EXTENSION_OPTIONS):
            raise AssertionError(
                f"Unexpected keyword argument to @ray.method: '{name}'. The supported keyword arguments are "
                f"{list(METHOD_OPTIONS)}"
            )


def check_call_options(options: Mapping[str, Any]) -> None:
    """TypeError or ValueError, in Ray's words, for what ``handle.method.options(...)`` does not take."""
    if not CALL_OPTIONS.issuperset(options):
        for name in options:
            if name not in CALL_OPTIONS and (strict_mode() or name not in EXTENSION_OPTIONS):
                raise TypeError(f"ActorMethod._remote() got an unexpected keyword argument '{name}'")
    num_returns = options.get("num_returns")
    if isinstance(num_returns, int) and num_returns < 0:
        raise ValueError(f"num_returns must be >= 0, but got {num_returns}.")


def merge_options(decorator: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What holds after ``.options(**options)``: each option given there replaces the decorator's as a whole.

    Only ``_metadata`` is joined key by key.
    """
    merged = {**decorator, **options}
    if decorator.get("_metadata") and options.get("_metadata"):
        merged["_metadata"] = {**decorator["_metadata"], **options["_metadata"]}
    return merged


def with_defaults(options: Mapping[str, Any], *, is_actor: bool) -> dict[str, Any]:
    """The options with the table's defaults for those not given."""
    table = ACTOR_OPTIONS if is_actor else TASK_OPTIONS
    return {**{name: option.default for name, option in table.items()}, **options}


# ---- resources ----


def to_units(quantity: float) -> int:
    """A quantity in units of 1/10,000; what lies below the unit is dropped, the noise of floats is not."""
    return int(round(quantity * RESOURCE_UNITS, 4))


def resource_request(options: Mapping[str, Any], *, is_actor: bool) -> dict[str, int]:
    """What a task, or a living actor, holds: resource names and units of 1/10,000, without zeros.

    A task takes one CPU unless it says otherwise (``None`` means none). An actor takes one if it names a GPU or a
    custom resource, else none, see ``placement_request``.

    Raises:
        ValueError: with Ray's texts, which Ray raises at ``.remote()``.
    """
    custom = options.get("resources") or {}
    if "memory" in custom or "object_store_memory" in custom:
        raise ValueError("The resources dictionary must not contain the key 'memory' or 'object_store_memory'")
    if "bundle" in custom:
        raise ValueError(f"The resource should not include `bundle` which is reserved for Ray. resources: {custom}")
    for name in custom:
        if not isinstance(name, str):
            raise TypeError(f"The name of a resource must be a string, but {name!r} is of type {type(name)}")
    num_gpus = options.get("num_gpus")
    if num_gpus is not None and num_gpus > 1 and num_gpus != int(num_gpus):
        # Two arguments, as in Ray, whose text is that of a tuple.
        message = f" be whole numbers. The specified quantity {num_gpus} is invalid."
        raise ValueError("GPU resource quantities >1 must", message)
    if is_actor:
        num_cpus = options.get("num_cpus")
        if num_cpus is None and (num_gpus is not None or custom):
            num_cpus = 1
    else:
        num_cpus = options.get("num_cpus", TASK_OPTIONS["num_cpus"].default)
    quantities = dict(custom, CPU=num_cpus, GPU=num_gpus, memory=int(options.get("memory") or 0))
    accelerator = options.get("accelerator_type")
    if accelerator is not None:
        quantities[f"accelerator_type:{accelerator}"] = 0.001
    return {name: units for name, quantity in quantities.items() if quantity and (units := to_units(quantity))}


def placement_request(options: Mapping[str, Any]) -> dict[str, int]:
    """What must be free for an actor to start: what it holds, and one CPU if it says nothing of CPUs."""
    request = resource_request(options, is_actor=True)
    if options.get("num_cpus") is None:
        request.setdefault("CPU", RESOURCE_UNITS)
    return request


def check_scheduling_strategy(strategy: Any) -> None:
    """ValueError unless a strategy given as text is one of Ray's; Ray raises it at ``.remote()``."""
    if isinstance(strategy, str) and strategy not in ("DEFAULT", "SPREAD"):
        raise ValueError(
            f'Invalid scheduling_strategy value {strategy}. Valid values are ["DEFAULT" | "SPREAD" | '
            "PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy]"
        )


def check_namespace(namespace: Any) -> None:
    """ValueError or TypeError, in Ray's words, unless a namespace is None or a non-empty string."""
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')


def check_actor_name(name: Any) -> None:
    """ValueError or TypeError, in Ray's words, unless an actor's name is None or a non-empty string."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be None or a string, got: '{type(name)}'.")
    if name == "":
        raise ValueError("Actor name cannot be an empty string.")


# ---- what may be decorated ----


def check_remote_target(target: Any) -> None:
    """Refuse what cannot be made remote; in strict mode also ``async def`` functions, partials and other callables, as
    Ray does.
    """
    if isinstance(target, type):
        return
    if not isinstance(target, FunctionType):
        if callable(target) and not hasattr(target, "remote") and not strict_mode():
            return
        raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")
    if strict_mode() and target.__code__.co_flags & _COROUTINE:
        raise ValueError(
            "'async def' should not be used for remote tasks. You can wrap the async function with "
            "`asyncio.run(f())`. See more at:https://docs.ray.io/en/latest/ray-core/actors/async_api.html "
        )


def check_remote_arguments(args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Refuse ``@remote`` with anything but one target, or keyword arguments alone; AssertionError as in Ray.

    ``@remote()`` is an extension: accepted, but not in strict mode.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return
    if not args and (options or not strict_mode()):
        return
    raise AssertionError(
        "The @ray.remote decorator must be applied either with no arguments and no parentheses, for example "
        "'@ray.remote', or it must be applied using some of the arguments in the list "
        f"{list(REMOTE_ARGUMENTS)}, for example '@ray.remote(num_returns=2, resources={{\"CustomResource\": 1}})'."
    )
