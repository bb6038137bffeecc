"""Handles of actors and their methods: what calls an actor, in whichever process it is.

A handle is a ref to the actor's handle object (`processes.actor_plane`), and travels like one: inside arguments,
results and puts it is counted as contained; in a pickle of the user's own it keeps the actor for as long as the process
lives. Programs know the classes as `miniray.actor.ActorHandle` and `miniray.actor.ActorMethod`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniray import exceptions
from miniray import options as option_table
from miniray.actor_descriptor import (
    BUILT_IN,
    EMPTY_EXTRAS,
    Descriptor,
    Method,
    Plan,
    decode_extras,
    method_extras,
    plan_of,
)
from miniray.ids import ActorID
from miniray.messages.objects import Address
from miniray.processes.auto_init import require_core
from miniray.processes.task_plane import encode_extras
from miniray.remote_function import generator_kind
from miniray.system import pickler

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.state_machines.actor_submission import ActorClient


class ActorHandle:
    """A handle of an actor: its methods are attributes, called by ``handle.method.remote(...)``.

    Handles can be passed to tasks and actors and stored anywhere. Those from `get_actor` are weak: they do not keep
    the actor alive.
    """

    __module__ = "miniray.actor"  # where programs know it

    _core: Any
    _entry: Any

    def __init__(self, actor_id: bytes, plan: Plan, client: ActorClient, core: Any, entry: Any) -> None:
        self._actor_id = ActorID(actor_id)
        self._plan = plan
        self._client = client
        self._entry = entry
        self._core = core

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("_plan"):
            raise AttributeError(name)
        method = self._plan.methods.get(name)
        if method is None:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return ActorMethod(self, method)

    def __del__(self) -> None:
        try:
            entry = self._entry
            if entry is not None:
                self._core.objects.released(entry)
        except AttributeError:
            pass

    def __dir__(self) -> list[str]:
        return sorted({*self._plan.methods, "__init__", *BUILT_IN})

    def __repr__(self) -> str:
        return f"Actor({self._plan.descriptor.class_name}, {self._actor_id.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._actor_id == other._actor_id

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by the user himself: the actor is kept for as long as this process lives.
        if self._entry is not None:
            with self._core.lock:
                self._entry.local += 1
        return _rebuild_handle, (*_handle_state(self), True)

    @property
    def _ray_actor_id(self) -> ActorID:
        return self._actor_id


class ActorMethod:
    """A method of a handle: `remote(...)` calls it, `options(...)` gives it other options."""

    __module__ = "miniray.actor"
    __slots__ = ("_handle", "_method", "_options")

    def __init__(self, handle: ActorHandle, method: Method, options: dict[str, Any] | None = None) -> None:
        self._handle = handle
        self._method = method
        self._options = options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Actor methods are not called directly.

        Raises:
            TypeError: always.
        """
        name = self._method.info.name
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{name}()', try "
            f"'object.{name}.remote()'."
        )

    def __dir__(self) -> list[str]:
        return ["bind", "options", "remote"]

    @property
    def _num_returns(self) -> Any:
        """How many refs a call returns, as libraries ask a method of Ray."""
        info = self._method.info
        default = info.num_returns if info.num_returns is not None else "streaming" if info.is_generator else 1
        return (self._options or {}).get("num_returns", default)

    @property
    def _method_name(self) -> str:
        return self._method.info.name

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options: num_returns, name, concurrency_group, max_task_retries,
        retry_exceptions, ...

        An option that a call does not take is a TypeError of `remote`.
        """
        return ActorMethod(self._handle, self._method, {**(self._options or {}), **options})

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method. Returns the ref of its result (a list for num_returns > 1, None for 0).

        Raises:
            TypeError: the arguments do not fit, or cannot be serialized.
            PendingCallsLimitExceeded: the actor's `max_pending_calls` are not done yet.
        """
        return self._remote(args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a task graph: this call, to be executed later. See `miniray.dag`."""
        from miniray.dag.class_node import ClassMethodNode  # few programs have graphs

        others = {"parent_class_node": self._handle, "prev_class_method_call": None, "bind_index": 0}
        return ClassMethodNode(self._method.info.name, args, kwargs, self._options or {}, others)

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        args = tuple(args or ())
        kwargs = kwargs or {}
        method = self._method
        handle = self._handle
        core: CoreWorker = handle._core
        if core.closed:
            raise exceptions.RaySystemError(
                f"{handle!r} belongs to an earlier session, which was shut down: the actor is gone."
            )
        arity = method.arity
        if (kwargs or arity is None or not arity[0] <= len(args) <= arity[1]) and method.signature is not None:
            method.signature.bind(*args, **kwargs)
        info = method.info
        extras = method.extras
        retries = method.retries
        name = method.name
        num_returns = info.num_returns
        if self._options or options:
            given = {**(self._options or {}), **options}
            option_table.check_call_options(given)
            num_returns = given.get("num_returns", num_returns)
            name = given.get("name") or name
            if given.get("max_task_retries") is not None:
                retries = given["max_task_retries"]
            extras = method_extras(info, given)
            group = given.get("concurrency_group")
            groups = handle._plan.descriptor.concurrency_groups
            if group and group not in groups:
                raise ValueError(f"The concurrency group '{group}' is not one of those of {handle!r}: {groups}.")
        if num_returns is None:
            num_returns = "streaming" if info.is_generator else 1
        generator = 0
        streaming = num_returns == "streaming"
        if isinstance(num_returns, str):
            if not info.is_generator:
                raise option_table.no_generator(num_returns)
            extras, generator = self._generator_extras(num_returns, options)
            num_returns = 1
        refs = core.actors.call(
            handle._client,
            handle._entry,
            info.name,
            args,
            kwargs,
            name=name,
            what=method.what,
            num_returns=num_returns,
            retries=retries,
            extras=extras,
            max_pending=handle._plan.descriptor.max_pending_calls,
            generator=generator,
        )
        if streaming:
            from miniray.generators import ObjectRefGenerator  # only generators

            return ObjectRefGenerator(core, core.generators.stream(refs[0]), refs[0])
        if num_returns == 1:
            return refs[0]
        return refs if refs else None

    def _generator_extras(self, kind: str, options: dict[str, Any]) -> tuple[bytes, int]:
        given = {**(self._options or {}), **options}
        backpressure = given.get("_generator_backpressure_num_objects", self._method.info.backpressure)
        if backpressure == 0:
            option_table.validate_task_options({"_generator_backpressure_num_objects": 0}, in_options=True)
        backpressure = -1 if backpressure is None else backpressure
        extras = decode_extras(method_extras(self._method.info, given) or EMPTY_EXTRAS)
        extras.generator = kind
        extras.generator_backpressure = backpressure
        return encode_extras(extras), generator_kind(kind, backpressure)


def _handle_state(handle: ActorHandle) -> tuple[bytes, bytes, bytes, str]:
    entry = handle._entry
    if entry is None:
        return handle._actor_id.binary(), handle._plan.encoded, b"", ""
    owner = handle._core.objects.owner_of(entry)
    return handle._actor_id.binary(), handle._plan.encoded, owner.worker_id, owner.endpoint


def _reduce_handle(pickler_: pickler.Pickler, handle: ActorHandle) -> tuple[Any, ...]:
    if pickler_.contained is None:
        return handle.__reduce__()
    if handle._entry is not None:
        pickler_.contained.append(handle)
    return _rebuild_handle, (*_handle_state(handle), False)


def _rebuild_handle(actor_id: bytes, encoded: bytes, owner_id: bytes, endpoint: str, out_of_band: bool) -> ActorHandle:
    core = require_core()
    owner = Address(owner_id, endpoint) if owner_id else None
    return make_handle(core, actor_id, plan_of(encoded), owner, out_of_band)


pickler.reducers[ActorHandle] = _reduce_handle


def make_handle(
    core: CoreWorker, actor_id: bytes, plan: Plan, owner: Address | None, out_of_band: bool = False
) -> ActorHandle:
    """A handle of an actor that this process did not create; weak without an owner."""
    from miniray.processes.actor_plane import handle_object_id

    client = core.actors.client(actor_id, plan.descriptor.ordered, shown_name(plan.descriptor, ""))
    entry = None
    if owner is not None:
        with core.lock:
            counter = core.objects.counter
            entry = counter.borrow(handle_object_id(actor_id), owner)
            entry.local += 1
            if out_of_band:
                counter.register([entry])
    return ActorHandle(actor_id, plan, client, core, entry)


def shown_name(descriptor: Descriptor, name: str) -> str:
    """How error texts name the actor."""
    return f"actor {name or descriptor.class_name}"
