"""Remote functions: what `@remote` makes of a function.

A `RemoteFunction` is made at import time, needs no session, and works over several of them. What a call needs and
what does not change between calls (the pickled function, its scheduling class, its options) is bound to a session
once, at the first call there.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray import options as option_table
from miniray.messages.control import LeaseSpec
from miniray.messages.tasks import TaskExtras
from miniray.processes import current, other_engine
from miniray.processes.auto_init import require_core
from miniray.scheduling_options import scheduling

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.processes.task_plane import TaskBinding


class RemoteFunction:
    """A function whose calls run as tasks in worker processes.

    Made by `miniray.remote`. `remote(*args, **kwargs)` submits a call and returns the ref of its result (a list of
    refs when `num_returns` is more than 1, None when it is 0); `options(...)` gives the same function with other
    options.

    Source: https://docs.ray.io/en/latest/ray-core/tasks.html
    """

    remote: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._function = function
        self._default_options = options
        self._function_name = f"{getattr(function, '__module__', None) or '__main__'}.{function_name(function)}"
        #: Workers know the pickled function by this; a copy that travels keeps it.
        self._token = os.urandom(16)
        self._prepare()

    def _prepare(self) -> None:
        self._call = _Call(self, self._default_options)
        self.remote = _submitter(self._function, self._call)
        self.__doc__ = self._function.__doc__

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self._function, "options": self._default_options, "token": self._token}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The function may not be complete yet: it can refer to this very object.
        self._function = state["function"]
        self._default_options = state["options"]
        self._token = state["token"]
        self._function_name = f"{self._function.__module__}.{function_name(self._function)}"
        self._prepare()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Remote functions are not called directly.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "Remote functions cannot be called directly. Instead of running "
            f"'{self._function_name}()', try '{self._function_name}.remote()'."
        )

    def options(self, **task_options: Any) -> OptionsWrapper:
        """The same function with other options, for one call or many: ``f.options(num_cpus=2).remote(x)``.

        Args:
            **task_options: as of `remote`, checked at once.

        Raises:
            ValueError, TypeError: an unknown option, or a value of the wrong type or range.
        """
        checked = check_runtime_env(option_table.validate_task_options(task_options, in_options=True))
        merged = option_table.merge_options(self._default_options, checked)
        return OptionsWrapper(_Call(self, merged), self._function, task_options)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a task graph: this call, to be executed later. See `miniray.dag`."""
        return _node(self, {}, args, kwargs)

    def _remote(self, args: Any = None, kwargs: Any = None, **task_options: Any) -> Any:
        """Submit with options given beside the arguments: ``f._remote(args=(1,), num_returns=2)``."""
        call = self._call
        if task_options:
            checked = check_runtime_env(option_table.validate_task_options(task_options, in_options=True))
            call = _Call(self, option_table.merge_options(self._default_options, checked))
        return call.submit(tuple(args or ()), dict(kwargs or {}))


class OptionsWrapper:
    """What `RemoteFunction.options` returns: `remote` submits with those options."""

    remote: Callable[..., Any]

    def __init__(self, call: _Call, function: Callable[..., Any], given: dict[str, Any] | None = None) -> None:
        self._call = call
        self._given = given or {}
        self.remote = _submitter(function, call)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a task graph: this call, to be executed later. See `miniray.dag`."""
        return _node(self._call.owner, self._given, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_wrapper, (self._call.owner, self._call.options)


def _node(owner: RemoteFunction, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from miniray.dag.function_node import FunctionNode  # few programs have graphs

    node = FunctionNode(owner._function, args, kwargs, options)
    node._remote = owner
    return node


def _rebuild_wrapper(owner: RemoteFunction, options: dict[str, Any]) -> OptionsWrapper:
    return OptionsWrapper(_Call(owner, options), owner._function)


def _submitter(function: Callable[..., Any], call: _Call) -> Callable[..., Any]:
    """The function behind `.remote`, with the name and the docstring of the user's."""

    def remote(*args: Any, **kwargs: Any) -> Any:
        return call.submit(args, kwargs)

    try:
        functools.update_wrapper(remote, function)
    except (AttributeError, TypeError):
        pass
    return remote


class _Call:
    """A remote function with one set of options, and its binding to the present session."""

    __slots__ = ("arity", "binding", "core", "elsewhere", "options", "owner", "signature", "single", "streaming")

    def __init__(self, owner: RemoteFunction, options: dict[str, Any]) -> None:
        self.owner = owner
        self.options = options
        self.core: CoreWorker | None = None
        self.elsewhere: Any = None  #: what another engine has made of it
        self.binding: TaskBinding | None = None
        self.signature: inspect.Signature | None = None
        self.arity: tuple[int, float] | None = None
        num_returns = resolved_num_returns(options.get("num_returns"), owner._function)
        self.single = num_returns in (1, "dynamic")
        self.streaming = num_returns == "streaming"

    def submit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Check the arguments against the signature, and submit."""
        core = self.core
        if core is None or core is not current._core or core.closed or current.capturing:
            other = other_engine.other_engine()
            if other is not None:
                if self.elsewhere is None:
                    self.elsewhere = other.remote_function(self.owner._function, self.options)
                return self.elsewhere.remote(*args, **kwargs)
            core = self._bind()
        arity = self.arity
        if kwargs or arity is None or not arity[0] <= len(args) <= arity[1]:
            assert self.signature is not None
            # Raises TypeError for too many, too few or unknown arguments, in the words of `inspect`, as Ray does.
            self.signature.bind(*args, **kwargs)
        assert self.binding is not None
        refs = core.tasks.submit(self.binding, args, kwargs)
        if self.single:
            return refs[0]
        if self.streaming:
            from miniray.generators import ObjectRefGenerator  # only generator tasks

            return ObjectRefGenerator(core, core.generators.stream(refs[0]), refs[0])
        return refs if refs else None

    def _bind(self) -> CoreWorker:
        core = require_core()
        owner = self.owner
        if self.signature is None:
            self.signature, self.arity = call_signature(owner._function)
        self.binding = bind_task(core, owner, self.options)
        self.core = core if core is current._core else None
        return core


def bind_task(core: CoreWorker, owner: RemoteFunction, options: dict[str, Any]) -> TaskBinding:
    """Bind a remote function and its options to a session: export it, find its scheduling class, encode its settings.

    Raises:
        ValueError: the function is too large, or its options contradict each other.
        TypeError: the function cannot be pickled.
    """
    from miniray.processes.task_plane import TaskBinding, encode_extras

    name = options.get("name") or function_name(owner._function)
    resources = option_table.resource_request(options, is_actor=False)
    what = f"{owner._function.__module__}.{getattr(owner._function, '__qualname__', name)}"
    export = core.exports.export(owner._token, owner._function, what=what, kind="remote function")
    retry_exceptions = options.get("retry_exceptions") or False
    types = b""
    if isinstance(retry_exceptions, (list, tuple)):
        from miniray.system.serialization import pickle_function

        types = pickle_function(tuple(retry_exceptions), lambda: "the option retry_exceptions")
    max_retries = options.get("max_retries")
    max_retries = DEFAULT_MAX_RETRIES if max_retries is None else max_retries
    num_returns = resolved_num_returns(options.get("num_returns"), owner._function)
    generator = ""
    backpressure = -1
    if not isinstance(num_returns, int):
        generator, num_returns = num_returns, 1
        given = options.get("_generator_backpressure_num_objects")
        backpressure = -1 if given is None else given
    where = scheduling(core, options, resources, {}, function_name(owner._function))
    extras = TaskExtras(
        retry_exceptions=bool(retry_exceptions),
        retry_exception_types=types,
        max_calls=_max_calls(options, resources),
        resources=None if resources == DEFAULT_RESOURCES else resources,
        generator=generator,
        generator_backpressure=backpressure,
        timeout=options.get("timeout_s") or core.job_config.get("task_timeout_s") or 0.0,
        placement_group_id=where.group_id,
        captures_children=where.captures,
        task_events=options.get("enable_task_events") is not False,
    )
    label_selector = options.get("label_selector") or {}
    spec = LeaseSpec(
        resources,
        core.job_id,
        runtime_env=runtime_env_of(core, options),
        strategy=where.strategy,
        label_selector=label_selector,
        placement_group_id=where.group_id,
        bundle_index=where.bundle_index,
        name=name,
        fallback_selectors=list(where.fallback_selectors),
        retriable=max_retries != 0,
    )
    key = (
        tuple(sorted(resources.items())),
        tuple(sorted(label_selector.items())),
        where[:3],
        tuple(tuple(sorted(selector.items())) for selector in where.fallback_selectors),
        spec.runtime_env,
        spec.retriable,
    )
    scheduling_class = core.tasks.submission.scheduling_class(key, spec)
    return TaskBinding(
        export,
        name,
        what,
        num_returns,
        max_retries,
        scheduling_class,
        b"" if extras == TaskExtras() else encode_extras(extras),
        generator_kind(generator, backpressure),
    )


def resolved_num_returns(num_returns: Any, function: Any) -> Any:
    """How many returns a call has: as the option says; by default 1, or "streaming" for a generator function.

    Raises:
        ValueError: "dynamic" or "streaming" for a function that does not yield.
    """
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if num_returns is None:
        return "streaming" if is_generator else 1
    if isinstance(num_returns, str) and not is_generator:
        raise option_table.no_generator(num_returns)
    return num_returns


def generator_kind(num_returns: str, backpressure: int) -> int:
    """`TaskBinding.generator`."""
    if not num_returns:
        return 0
    return 3 if num_returns == "dynamic" else 2 if backpressure > 0 else 1


DEFAULT_MAX_RETRIES = 3
DEFAULT_RESOURCES = {"CPU": 10000}


def _max_calls(options: dict[str, Any], resources: dict[str, int]) -> int:
    max_calls = options.get("max_calls")
    if max_calls is None:
        # A worker that has used a GPU leaves, so that the device's memory is free again (Ray's rule).
        return 1 if resources.get("GPU") else 0
    return int(max_calls)


def runtime_env_of(core: CoreWorker, options: dict[str, Any]) -> str:
    """The runtime environment of a call with these options, as it travels: JSON, "" for none."""
    if not options.get("runtime_env"):
        return core.runtime_env
    from miniray.runtime_env.inheritance import combined  # few functions have one

    return combined(core.runtime_env, options["runtime_env"])


def check_runtime_env(options: dict[str, Any]) -> dict[str, Any]:
    """The same options, with a checked runtime environment.

    Raises:
        TypeError, ValueError: as `miniray.runtime_env.RuntimeEnv`; a local directory.
    """
    if options.get("runtime_env"):
        from miniray.runtime_env.inheritance import own_environment  # few functions have one

        options["runtime_env"] = own_environment(options["runtime_env"])
    return options


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function as Ray shows it; a partial has that of the function inside."""
    name = getattr(function, "__name__", None)
    if name is not None:
        return str(name)
    if isinstance(function, functools.partial):
        return function_name(function.func)
    return type(function).__qualname__


def call_signature(function: Callable[..., Any]) -> tuple[inspect.Signature, tuple[int, float] | None]:
    """The signature of a function, and how many positional arguments satisfy it when there are no keyword ones.

    None for the second when only `Signature.bind` can tell (required keyword-only parameters).
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin without one: anything goes
        parameters = [
            inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        ]
        signature = inspect.Signature(parameters)
    least, most = 0, 0.0
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            if parameter.default is parameter.empty:
                least += 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = float("inf")
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            return signature, None
    return signature, (least, most)
