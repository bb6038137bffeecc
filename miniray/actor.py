"""Actors: what `@remote` makes of a class, and the functions on actors. (Handles: `actor_handle`.)

An actor is an instance that lives in a worker process of its own. `Class.remote(...)` creates one and returns a
handle at once; `handle.method.remote(...)` calls it and returns a ref. The actor lives until its last handle is gone,
`kill`, or its own exit; detached ones until they are killed.

Source: https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray import options as option_table
from miniray.actor_descriptor import describe, parameters_of, plan_of, signature_from
from miniray.actor_handle import ActorHandle as ActorHandle
from miniray.actor_handle import ActorMethod as ActorMethod
from miniray.actor_handle import make_handle as make_handle
from miniray.actor_handle import shown_name
from miniray.messages import control
from miniray.messages.control import LeaseSpec
from miniray.messages.tasks import TaskExtras
from miniray.processes import current, other_engine
from miniray.processes.actor_executor import ASYNC_CONCURRENCY
from miniray.processes.auto_init import require_core
from miniray.processes.other_engine import handed_over
from miniray.processes.task_plane import encode_extras
from miniray.remote_function import check_runtime_env, runtime_env_of
from miniray.scheduling_options import scheduling
from miniray.system import user_log

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: Seconds that an actor gets to end by itself in ``kill(actor, graceful=True)``.
GRACEFUL_TIMEOUT = 5.0
_DETACHED_IN_GROUP = (
    "Scheduling a restartable detached actor with a placement group is not recommended because Ray will kill the actor "
    "when the placement group is removed and the actor will not be able to be restarted."
)


class ActorClassInheritanceException(TypeError):
    """Somebody tried to inherit from an actor class."""


# ---- actor classes ----


class ActorClass:
    """A class whose instances live in worker processes. Made by `miniray.remote`."""

    remote: Callable[..., ActorHandle]

    def __init__(self, *args: Any) -> None:
        if len(args) == 3:
            # ``class E(ActorClass): ...`` calls the type of its base with the name, the bases and the body.
            name, bases, _ = args
            base = bases[0]._cls.__name__ if isinstance(bases[0], ActorClass) else bases[0].__name__
            raise ActorClassInheritanceException(
                f"Attempted to define subclass '{name}' of actor class '{base}'. Inheriting from actor classes is not "
                "currently supported. You can instead inherit from a non-actor base class and make the derived class "
                "an actor class (with @ray.remote)."
            )
        cls, options = args
        self._cls: type = cls
        self._default_options: dict[str, Any] = options
        self._token = os.urandom(16)
        self._prepare()

    def _prepare(self) -> None:
        cls = self._cls
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self._proxy: type | None = None
        self.remote = self._remote_function()

    def __getstate__(self) -> dict[str, Any]:
        return {"cls": self._cls, "options": self._default_options, "token": self._token}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cls = state["cls"]
        self._default_options = state["options"]
        self._token = state["token"]
        self._prepare()

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty_actor_class, (), self.__getstate__()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Actors are not made by calling the class.

        Raises:
            TypeError: always.
        """
        name = self._cls.__name__
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__ray"):
            raise AttributeError(name)
        return getattr(self._derived(), name)

    def _derived(self) -> type:
        """What class methods called on the actor class see as their class (in the process that calls them)."""
        if self._proxy is None:
            self._proxy = type(f"ActorClass({self._cls.__name__})", (self._cls,), {"__module__": self._cls.__module__})
        return self._proxy

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._cls), "remote", "options", "bind"})

    def __repr__(self) -> str:
        return f"ActorClass({self._cls.__name__})"

    def options(self, **actor_options: Any) -> ActorOptionsWrapper:
        """The same class with other options: ``A.options(num_cpus=2, name="a").remote()``.

        Raises:
            ValueError, TypeError: an unknown option, or a value of the wrong type or range.
        """
        checked = check_runtime_env(option_table.validate_actor_options(actor_options, in_options=True))
        return ActorOptionsWrapper(self, option_table.merge_options(self._default_options, checked), actor_options)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a task graph: an actor that is created when the graph is executed. See `miniray.dag`."""
        return _class_node(self, {}, args, kwargs)

    def _remote_function(self) -> Callable[..., ActorHandle]:
        def remote(*args: Any, **kwargs: Any) -> ActorHandle:
            return create_actor(self, args, kwargs, self._default_options)

        return remote

    def _remote(self, args: Any = None, kwargs: Any = None, **actor_options: Any) -> ActorHandle:
        """Create with options given beside the arguments."""
        options = self._default_options
        if actor_options:
            checked = check_runtime_env(option_table.validate_actor_options(actor_options, in_options=True))
            options = option_table.merge_options(options, checked)
        return create_actor(self, tuple(args or ()), dict(kwargs or {}), options)


def _empty_actor_class() -> ActorClass:
    return ActorClass.__new__(ActorClass)


class ActorOptionsWrapper:
    """What `ActorClass.options` returns: `remote` creates with those options."""

    def __init__(self, actor_class: ActorClass, options: dict[str, Any], given: dict[str, Any] | None = None) -> None:
        self._actor_class = actor_class
        self._given = given or {}
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Create an actor."""
        return create_actor(self._actor_class, args, kwargs, self._options)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a task graph: an actor that is created when the graph is executed. See `miniray.dag`."""
        return _class_node(self._actor_class, self._given, args, kwargs)


def _class_node(owner: ActorClass, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from miniray.dag.class_node import ClassNode  # few programs have graphs

    node = ClassNode(owner._cls, args, kwargs, options)
    node._remote = owner
    return node


def make_actor_class(cls: type, options: dict[str, Any]) -> ActorClass:
    """Decorate a class.

    Raises:
        ValueError, TypeError: with Ray's texts.
    """
    checked = check_runtime_env(option_table.validate_actor_options(options, in_options=False))
    return _class_of(cls)(cls, checked)


def _class_of(cls: type) -> type[ActorClass]:
    """The type of one actor class: a type of its own, as in Ray, so that it shows the name and nobody's docstring."""
    return type(f"ActorClass({cls.__name__})", (ActorClass,), {"__module__": cls.__module__})


def create_actor(
    actor_class: ActorClass, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
) -> ActorHandle:
    """Create an actor (or find it, with `get_if_exists`), and return its handle at once.

    Raises:
        TypeError: the arguments do not fit the constructor, or cannot be serialized.
        ValueError: the name is taken, or an option is out of range.
    """
    other = other_engine.other_engine()
    if other is not None:
        return other.create_actor(actor_class, args, kwargs, options)  # type: ignore[no-any-return]
    cls = actor_class._cls
    name, namespace = options.get("name"), options.get("namespace")
    option_table.check_actor_name(name)
    option_table.check_namespace(namespace)
    lifetime = options.get("lifetime")
    core = require_core()
    what = f"{cls.__module__}.{cls.__qualname__}.__init__"
    constructor = inspect.getattr_static(cls, "__init__")
    if constructor is not object.__init__:
        rows = parameters_of(constructor, True)
        if rows is not None:
            signature_from(rows)[0].bind(*args, **kwargs)
    elif args or kwargs:
        raise TypeError("too many positional arguments" if args else "got an unexpected keyword argument")
    plan, is_async, groups = describe(actor_class, options, core.job_config.get("task_timeout_s") or 0.0)
    descriptor = plan.descriptor
    export = core.exports.export(actor_class._token, cls, what=what, kind="actor")
    resources = option_table.resource_request(options, is_actor=True)
    placement = option_table.placement_request(options)
    waits_for = placement if options.get("num_cpus") is None else {}
    where = scheduling(core, options, resources, waits_for, cls.__name__)
    if where.group_id and lifetime == "detached" and options.get("max_restarts"):
        user_log.say(user_log.WARNING, _DETACHED_IN_GROUP)
    concurrency = options.get("max_concurrency") or (ASYNC_CONCURRENCY if is_async else 1)
    if options.get("allow_out_of_order_execution") is False and (is_async or concurrency > 1):
        kind = "async" if is_async else "multi-threaded"
        raise ValueError(
            f"If you're using {kind} actors, Ray can't execute actor tasks in order. Set "
            "`allow_out_of_order_execution=True` to allow out-of-order execution."
        )
    extras = TaskExtras(
        resources=resources,
        max_concurrency=concurrency,
        concurrency_groups=groups,
        out_of_order=bool(options.get("allow_out_of_order_execution")),
        actor_name=name or "",
        placement_group_id=where.group_id,
        captures_children=where.captures,
        task_events=options.get("enable_task_events") is not False,
    )
    spec = LeaseSpec(
        placement,
        core.job_id,
        runtime_env=runtime_env_of(core, options),
        strategy=where.strategy,
        label_selector=options.get("label_selector") or {},
        placement_group_id=where.group_id,
        bundle_index=where.bundle_index,
        name=cls.__name__,
        fallback_selectors=list(where.fallback_selectors),
        retriable=bool(options.get("max_restarts")),
    )
    try:
        actor_id, entry, row = core.actors.create(
            export,
            args,
            kwargs,
            what=what,
            class_name=cls.__name__,
            qualified_name=cls.__qualname__,
            extras=encode_extras(extras),
            placement=spec,
            resources=resources,
            name=name or "",
            namespace=namespace or core.namespace,
            detached=lifetime == "detached",
            max_restarts=options.get("max_restarts") or 0,
            get_if_exists=bool(options.get("get_if_exists")),
            ordered=descriptor.ordered,
            descriptor=plan.encoded,
            info=shown_name(descriptor, name or ""),
        )
    except exceptions.ActorAlreadyExistsError:
        # With the namespace as it was given, as in Ray.
        raise exceptions.ActorAlreadyExistsError(
            f"The name {name} (namespace={namespace}) is already taken. Please use a different name or get the "
            f"existing actor using ray.get_actor('{name}', namespace='{namespace}')"
        ) from None
    if row is not None:
        return make_handle(core, actor_id, plan_of(bytes(row[3])), None)
    return ActorHandle(actor_id, plan, core.actors.clients[actor_id], core, entry)


# ---- top-level functions ----


def method(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """Options of an actor's method, as a decorator: ``@method(num_returns=2)``.

    Args:
        **kwargs: num_returns, concurrency_group, max_task_retries, retry_exceptions, ...

    Raises:
        AssertionError: an unknown option, or positional arguments.
        ValueError: a value out of range.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.method.html
    """
    if args:
        raise AssertionError(
            "The @ray.method decorator must be applied using keyword arguments of the list "
            f"{list(option_table.METHOD_OPTIONS)}, for example '@ray.method(num_returns=2)'."
        )
    option_table.check_method_options(kwargs)

    def annotate(function: Any) -> Any:
        checked = option_table.validate_method_options(
            kwargs, is_generator=inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        )
        function.__ray_method_options__ = checked
        if checked.get("concurrency_group"):
            function.__ray_concurrency_group__ = checked["concurrency_group"]
        return function

    return annotate


@handed_over
def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A (weak) handle of the actor with this name.

    Raises:
        ValueError: there is none in this namespace.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.get_actor.html
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got: '{type(name)}'.")
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    option_table.check_namespace(namespace)
    core = require_core()
    arguments = {"name": name, "namespace": namespace or core.namespace}
    row = core.head_client.request(lambda number: control.Query(number, "named_actor", arguments))
    if row is None:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named "
            "actor you didn't create. 2. The named actor died. 3. You did not use a namespace matching the namespace "
            "of the actor."
        )
    return make_handle(core, bytes(row[0]), plan_of(bytes(row[3])), None)


@handed_over
def kill(actor: ActorHandle, *, no_restart: bool = True, **extensions: Any) -> None:
    """Kill an actor at once: its process gets no chance to clean up. Calls that are not done fail.

    Args:
        no_restart: False lets it restart, if it has restarts left.
        **extensions: of miniray (refused in strict mode). ``graceful=True``: interrupt the method that runs, even an
            endless one, let its `finally` blocks, `__ray_shutdown__` and atexit handlers run, and kill the process only
            if it has not ended after ``timeout`` seconds (default 5).

    Raises:
        ValueError: not an actor handle.
        TypeError: an unknown keyword argument.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.kill.html
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"ray.kill() only supported for actors. For tasks, try ray.cancel(). Got: {type(actor)}.")
    unknown = [name for name in extensions if name not in ("graceful", "timeout") or option_table.strict_mode()]
    if unknown:
        raise TypeError(f"kill() got an unexpected keyword argument '{unknown[0]}'")
    core: CoreWorker = actor._core
    actor_id = actor._actor_id.binary()
    if extensions.get("graceful") and core.actors.stop(actor_id, extensions.get("timeout", GRACEFUL_TIMEOUT)):
        return
    core.actors.kill(actor_id, no_restart)


#: Ray's own signature: the extensions are no part of it.
kill.__signature__ = inspect.signature(lambda actor, *, no_restart=True: None)  # type: ignore[attr-defined]


@handed_over
def exit_actor() -> None:
    """End the current actor after this call, in good order; it is not restarted.

    Raises:
        TypeError: not inside an actor.
        SystemExit: in the actor, to leave the method; in an async actor, AsyncioActorExit.
    """
    core = current.core_or_none()
    if core is None or core.actor is None:
        mode = 1 if core is not None and core.mode == "worker" else 0
        raise TypeError(
            f"exit_actor API is called on a non-actor worker, {mode}. Call this API inside an actor methods"
            "if you'd like to exit the actor gracefully."
        )
    core.actor.exit("exit_actor: exit_actor() is called.")


def current_actor_handle() -> ActorHandle:
    """A weak handle of the actor that runs this code.

    Raises:
        RuntimeError: not inside an actor.
    """
    core = current.core_or_none()
    if core is None or core.actor is None:
        raise RuntimeError("This method is only available in an actor.")
    actor_id = core.actor.actor_id
    row = core.head_client.request(lambda number: control.Query(number, "actor", {"actor_id": actor_id}))
    return make_handle(core, actor_id, plan_of(bytes(row["descriptor"])), None)
