"""What is known of an actor class without its code: its methods, their signatures and options, as they travel with
handles.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages.tasks import TaskExtras
from miniray.processes.actor_executor import has_async_methods
from miniray.processes.task_plane import encode_extras
from miniray.remote_function import call_signature

if TYPE_CHECKING:
    from miniray.actor import ActorClass

_KINDS = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD")
BUILT_IN = ("__ray_ready__", "__ray_call__", "__ray_terminate__")


class MethodInfo(msgspec.Struct, array_like=True, frozen=True):
    """One method of an actor class, without its code."""

    name: str
    parameters: list[tuple[str, int, bool]] | None  #: name, kind, has a default; without self; None: anything goes
    num_returns: int | str | None = None
    concurrency_group: str = ""
    max_task_retries: int | None = None
    retry_exceptions: bool = False
    retry_exception_types: bytes = b""
    is_generator: bool = False
    backpressure: int = -1
    timeout: float = 0.0


class Descriptor(msgspec.Struct, array_like=True, frozen=True):
    """What another process needs to make a handle."""

    class_name: str
    module: str
    methods: list[MethodInfo]
    ordered: bool
    is_async: bool
    max_task_retries: int
    max_pending_calls: int
    token: bytes
    concurrency_groups: list[str]


decode_extras = msgspec.msgpack.Decoder(TaskExtras).decode
EMPTY_EXTRAS = encode_extras(TaskExtras())
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Descriptor).decode


class Method:
    """A method of an actor class, ready to be called through handles; shared by all handles of one descriptor."""

    __slots__ = ("arity", "extras", "info", "name", "retries", "signature", "what")

    def __init__(self, descriptor: Descriptor, info: MethodInfo) -> None:
        self.info = info
        self.name = f"{descriptor.class_name}.{info.name}"
        self.what = f"{descriptor.module}.{self.name}"
        retries = info.max_task_retries
        self.retries = descriptor.max_task_retries if retries is None else retries
        self.signature: inspect.Signature | None = None
        self.arity: tuple[int, float] | None = (0, float("inf"))
        if info.parameters is not None:
            self.signature, self.arity = signature_from(info.parameters)
        self.extras = method_extras(info, {})


class Plan:
    """A descriptor with its methods by name."""

    __slots__ = ("descriptor", "encoded", "methods")

    def __init__(self, descriptor: Descriptor, encoded: bytes) -> None:
        self.descriptor = descriptor
        self.encoded = encoded
        self.methods = {info.name: Method(descriptor, info) for info in descriptor.methods}


_plans: dict[bytes, Plan] = {}


def plan_of(encoded: bytes) -> Plan:
    plan = _plans.get(encoded)
    if plan is None:
        plan = _plans[encoded] = Plan(_decode(encoded), encoded)
    return plan


def method_extras(info: MethodInfo, options: dict[str, Any]) -> bytes:
    group = options.get("concurrency_group") or info.concurrency_group
    retry_exceptions = options.get("retry_exceptions", info.retry_exceptions)
    types = info.retry_exception_types if retry_exceptions is info.retry_exceptions else b""
    if isinstance(retry_exceptions, (list, tuple)):
        types = _pickled_types(retry_exceptions)
    extras = TaskExtras(
        concurrency_group=group or "",
        retry_exceptions=bool(retry_exceptions),
        retry_exception_types=types,
        timeout=options.get("timeout_s") or info.timeout,
    )
    return b"" if extras == TaskExtras() else encode_extras(extras)


def _pickled_types(types: Any) -> bytes:
    from miniray.system.serialization import pickle_function

    return pickle_function(tuple(types), lambda: "the option retry_exceptions")


def parameters_of(function: Any, bound: bool) -> list[tuple[str, int, bool]] | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    rows = [
        (parameter.name, int(parameter.kind), parameter.default is not parameter.empty)
        for parameter in signature.parameters.values()
    ]
    if bound and rows and rows[0][1] in (0, 1):
        del rows[0]
    return rows


def signature_from(rows: list[tuple[str, int, bool]]) -> tuple[inspect.Signature, tuple[int, float] | None]:
    kinds = [getattr(inspect.Parameter, name) for name in _KINDS]
    signature = inspect.Signature(
        [
            inspect.Parameter(name, kinds[kind], default=None if has_default else inspect.Parameter.empty)
            for name, kind, has_default in rows
        ]
    )

    def stand_in() -> None: ...

    stand_in.__signature__ = signature  # type: ignore[attr-defined]
    return call_signature(stand_in)


def describe(
    actor_class: ActorClass, options: dict[str, Any], default_timeout: float
) -> tuple[Plan, bool, dict[str, int]]:
    cls = actor_class._cls
    is_async = has_async_methods(cls)
    groups = _group_sizes(options.get("concurrency_groups"))
    concurrency = options.get("max_concurrency") or 0
    ordered = not (is_async or concurrency > 1 or groups or options.get("allow_out_of_order_execution"))
    methods = []
    for name in dir(cls):
        if name == "__init__" or name in BUILT_IN:
            continue
        static = inspect.getattr_static(cls, name)
        function = static.__func__ if isinstance(static, (staticmethod, classmethod)) else static
        if not (inspect.isfunction(function) or inspect.ismethoddescriptor(function)) or isinstance(static, property):
            continue
        if name.startswith("__") and name.endswith("__") and not inspect.isfunction(function):
            continue  # what every object has; those that the class itself defines can be called
        given = getattr(function, "__ray_method_options__", {})
        group = given.get("concurrency_group")
        if group and group not in groups:
            raise AssertionError(f"The concurrency group '{group}' of {cls.__name__}.{name} is not in {list(groups)}.")
        retry = given.get("retry_exceptions") or False
        methods.append(
            MethodInfo(
                name,
                parameters_of(function, not isinstance(static, staticmethod)),
                given.get("num_returns"),
                group or "",
                given.get("max_task_retries"),
                bool(retry),
                _pickled_types(retry) if isinstance(retry, (list, tuple)) else b"",
                inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function),
                given.get("_generator_backpressure_num_objects") or -1,
                given.get("timeout_s") or options.get("timeout_s") or default_timeout,
            )
        )
    methods += [MethodInfo(name, None) for name in BUILT_IN]
    max_pending = options.get("max_pending_calls")
    descriptor = Descriptor(
        cls.__name__,
        cls.__module__,
        methods,
        ordered,
        is_async,
        options.get("max_task_retries") or 0,
        -1 if max_pending is None else max_pending,
        actor_class._token,
        list(groups),
    )
    return plan_of(_encode(descriptor)), is_async, groups


def _group_sizes(groups: Any) -> dict[str, int]:
    if not groups:
        return {}
    if isinstance(groups, list):
        return {group["name"]: group["max_concurrency"] for group in groups}
    return dict(groups)
