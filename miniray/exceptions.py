"""Every error that miniray raises, under Ray's names, with Ray's inheritance, arguments and texts.

    RayError
    ├── RayTaskError                            a task raised; `get` raises RayTaskError(ValueError), which is both
    ├── TaskCancelledError
    ├── TaskUnschedulableError
    ├── TaskPlacementGroupRemoved
    ├── TaskTimeoutError (TimeoutError)         miniray's own: the task's time limit passed
    ├── GetTimeoutError (TimeoutError)
    ├── PendingCallsLimitExceeded
    ├── RayActorError
    │   ├── ActorDiedError                      it will not come back
    │   └── ActorUnavailableError               it may come back
    ├── ActorAlreadyExistsError (ValueError)
    ├── ActorHandleNotFoundError (ValueError)
    ├── ActorUnschedulableError
    ├── ActorPlacementGroupRemoved
    ├── AsyncioActorExit
    ├── WorkerCrashedError
    ├── NodeDiedError
    ├── LocalRayletDiedError
    ├── OutOfMemoryError
    ├── ObjectStoreFullError
    ├── OutOfDiskError
    ├── ObjectLostError
    │   ├── ObjectFetchTimedOutError
    │   ├── ObjectFreedError
    │   ├── ObjectReconstructionFailedError
    │   ├── OwnerDiedError
    │   └── ReferenceCountingAssertionError (AssertionError)
    ├── ObjectRefStreamEndOfStreamError
    ├── OufOfBandObjectRefSerializationException    (sic)
    ├── UnserializableException
    ├── RuntimeEnvSetupError
    ├── RpcError
    ├── AuthenticationError
    ├── PlasmaObjectNotAvailable
    ├── CrossLanguageError
    ├── UserCodeException
    └── RaySystemError
        ├── RayChannelError
        │   └── RayChannelTimeoutError (TimeoutError)
        ├── RayCgraphCapacityExceeded
        ├── RayDirectTransportError
        └── StreamingGeneratorReplayInconsistentError

Errors hold fields and build their sentence in ``__str__``; all of them survive pickling. How a task's exception
becomes a RayTaskError, and how errors travel between processes, is in ``task_errors``; the classes that are both
a RayTaskError and the user's own are made in ``dual_exceptions``.
"""

from __future__ import annotations

import enum
import os
from typing import Any, ClassVar, NamedTuple

_CYAN = "\x1b[36m"
_PLAIN = "\x1b[39m"
_TRACEBACK_HEADER = "Traceback (most recent call last):"


def exception_path(name: str) -> str:
    """How texts spell an error's class: in Ray's words, because programs match on them."""
    return f"ray.exceptions.{name}"


def _rebuild_error(cls: type[RayError], args: tuple[Any, ...], state: dict[str, Any]) -> RayError:
    # Not through __init__: an error made with keyword arguments, or of a class whose __init__ wants more
    # than ``args``, has to come back too.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class RayError(Exception):
    """The root of all errors of the system.

    Hardly an ``__init__`` in this module calls the next one: ``args`` stays what ``BaseException.__new__`` made of the
    positional arguments, as in Ray.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (type(self), self.args, self.__dict__)

    def to_bytes(self) -> bytes:
        """This error as bytes that ``from_bytes`` reads back, in any process."""
        from miniray.task_errors import to_wire  # stands on this module

        return to_wire(self)

    @staticmethod
    def from_bytes(data: bytes) -> BaseException:
        """The error that ``to_bytes`` wrote; UnserializableException if its class cannot be rebuilt here."""
        from miniray.task_errors import from_wire  # stands on this module

        return from_wire(data)


class ErrorType(enum.IntEnum):
    """Why an object holds an error instead of a value, with Ray's names and numbers (the state API shows them)."""

    WORKER_DIED = 0
    ACTOR_DIED = 1
    TASK_EXECUTION_EXCEPTION = 3
    OBJECT_IN_PLASMA = 4
    TASK_CANCELLED = 5
    ACTOR_CREATION_FAILED = 6
    RUNTIME_ENV_SETUP_FAILED = 7
    OBJECT_LOST = 8
    OWNER_DIED = 9
    OBJECT_DELETED = 10
    DEPENDENCY_RESOLUTION_FAILED = 11
    OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED = 12
    OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED = 13
    OBJECT_FETCH_TIMED_OUT = 14
    LOCAL_RAYLET_DIED = 15
    TASK_PLACEMENT_GROUP_REMOVED = 16
    ACTOR_PLACEMENT_GROUP_REMOVED = 17
    TASK_UNSCHEDULABLE_ERROR = 18
    ACTOR_UNSCHEDULABLE_ERROR = 19
    OUT_OF_DISK_ERROR = 20
    OBJECT_FREED = 21
    OUT_OF_MEMORY = 22
    NODE_DIED = 23
    END_OF_STREAMING_GENERATOR = 24
    ACTOR_UNAVAILABLE = 25
    GENERATOR_TASK_FAILED_FOR_OBJECT_RECONSTRUCTION = 26
    OBJECT_UNRECONSTRUCTABLE_PUT = 27
    OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED = 28
    OBJECT_UNRECONSTRUCTABLE_BORROWED = 29
    OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND = 30
    OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED = 31
    OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED = 32
    WORKER_STARTUP_FAILED = 33
    STREAMING_GENERATOR_REPLAY_INCONSISTENT = 34


class _MessageError(RayError):
    """An error that is one sentence, given as ``error_message``, behind a fixed prefix."""

    _PREFIX: ClassVar[str] = ""

    def __init__(self, error_message: str) -> None:
        self.error_message = error_message

    def __str__(self) -> str:
        return f"{self._PREFIX}{self.error_message}"


class RayTaskError(RayError):
    """A task, or an actor's method, raised an exception.

    ``get`` raises ``as_instanceof_cause()``: an instance of both RayTaskError and the class of the cause.

    Args:
        function_name: the function or method that ran.
        traceback_str: the traceback, user's frames only, with a "Traceback (most recent call last):" line before
            each exception of a chain; ``str()`` says in its place which process of which task it was.
        cause: the exception that the task raised.
        proctitle: title of the process at that time, ``ray::`` and the task's name.
        pid: of the process, by default this one.
        ip: address of the node.
        actor_repr: ``repr`` of the actor, if it was an actor's method.
        actor_id: of that actor, in hex.
    """

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException | None,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"ray::{function_name}"
        self.pid = os.getpid() if pid is None else pid
        self.ip = ip or "127.0.0.1"
        self.actor_repr = actor_repr
        self._actor_id = actor_id

    def __str__(self) -> str:
        where = f"pid={self.pid}, ip={self.ip}"
        if self.actor_repr is not None or self._actor_id is not None:
            where += f", actor_id={self._actor_id}, repr={self.actor_repr}"
        header = f"{_CYAN}{self.proctitle}(){_PLAIN} ({where})"
        lines = self.traceback_str.strip().split("\n")
        return "\n".join(header if line == _TRACEBACK_HEADER else line for line in lines)

    def make_dual_exception_instance(self) -> RayTaskError:
        """An instance of both RayTaskError and the cause's class; TypeError if that class forbids subclassing."""
        from miniray.dual_exceptions import make_dual_exception  # stands on this module

        return make_dual_exception(self)

    def as_instanceof_cause(self) -> RayTaskError:
        """What ``get`` raises: the dual exception, or this one (with a warning) where the class forbids it."""
        cause = self.cause
        if cause is None or issubclass(RayTaskError, type(cause)):
            return self
        try:
            return self.make_dual_exception_instance()
        except Exception as error:
            import logging  # only needed here, and slow to import

            logging.getLogger("ray.exceptions").warning(
                "User exception type %s in RayTaskError can't be subclassed! This exception is raised as RayTaskError "
                "only. You can use `ray_task_error.cause` to access the user exception. Failure in subclassing: %s",
                type(cause),
                error,
            )
            return self


class TaskCancelledError(RayError):
    """The task was cancelled with ``cancel``, or it waits for one that was."""

    def __init__(self, task_id: Any = None, error_message: str | None = None) -> None:
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self) -> str:
        message = self.error_message or ""
        return message if self.task_id is None else f"Task: {self.task_id} was cancelled. {message}"


class TaskUnschedulableError(_MessageError):
    """The task can never be placed."""

    _PREFIX = "The task is not schedulable: "


class TaskPlacementGroupRemoved(RayError):
    """The placement group that the task was to run in is gone."""

    def __str__(self) -> str:
        return "The placement group corresponding to this task has been removed."


class GetTimeoutError(RayError, TimeoutError):
    """``get(..., timeout=)`` ran out of time."""


class TaskTimeoutError(RayError, TimeoutError):
    """miniray's own: the task ran longer than its ``timeout_s``."""

    def __init__(self, task_name: str, timeout_s: float) -> None:
        self.task_name = task_name
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"The task {self.task_name} ran longer than its time limit of {self.timeout_s:g} s."


class PendingCallsLimitExceeded(RayError):
    """The actor has ``max_pending_calls`` calls waiting already."""


class ActorDiedErrorContext(NamedTuple):
    """What is known of an actor that died."""

    actor_id: bytes
    class_name: str = ""
    error_message: str = ""
    pid: int = 0
    name: str = ""
    ray_namespace: str = ""
    node_ip_address: str = ""
    never_started: bool = False
    preempted: bool = False
    owner_id: bytes = b""
    owner_ip_address: str = ""


class RayActorError(RayError):
    """The actor died, or cannot be reached, before it finished this call.

    Attributes:
        actor_id: in hex, or None if unknown.
        actor_init_failed: whether its ``__init__`` raised.
        preempted: whether its node was taken away.
    """

    BASE_ERROR_MSG = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = BASE_ERROR_MSG,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        self.actor_id = actor_id
        self.error_msg = error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted

    def __str__(self) -> str:
        return self.error_msg

    @property
    def actor_init_failed(self) -> bool:
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        return self._preempted


class ActorDiedError(RayActorError):
    """The actor is dead for good.

    Args:
        cause: the RayTaskError of its ``__init__``, or what is known of its death, or None.
    """

    BASE_ERROR_MSG = "The actor died unexpectedly before finishing this task."

    def __init__(self, cause: RayTaskError | ActorDiedErrorContext | None = None) -> None:
        if isinstance(cause, RayTaskError):
            super().__init__(
                cause._actor_id,
                f"The actor died because of an error raised in its creation task, {cause}",
                actor_init_failed=True,
            )
        elif cause is None:
            super().__init__(None, self.BASE_ERROR_MSG)
        else:
            super().__init__(cause.actor_id.hex(), self._story(cause), preempted=cause.preempted)

    @classmethod
    def _story(cls, context: ActorDiedErrorContext) -> str:
        lines = [cls.BASE_ERROR_MSG, f"\tclass_name: {context.class_name}", f"\tactor_id: {context.actor_id.hex()}"]
        details = {
            "pid": context.pid,
            "name": context.name,
            "namespace": context.ray_namespace,
            "ip": context.node_ip_address,
        }
        lines += [f"\t{key}: {value}" for key, value in details.items() if value]
        lines.append(context.error_message)
        if context.never_started:
            lines.append("The actor never ran - it was cancelled before it started running.")
        return "\n".join(lines)

    @staticmethod
    def from_task_error(task_error: RayTaskError) -> ActorDiedError:
        """The error of every call of an actor whose ``__init__`` raised this."""
        return ActorDiedError(task_error)


class ActorUnavailableError(RayActorError):
    """The actor cannot be reached now (it restarts, or its node is lost); it may come back."""

    def __init__(self, error_message: str, actor_id: bytes | None) -> None:
        hex_id = None if actor_id is None else actor_id.hex()
        text = (
            f"The actor {hex_id} is unavailable: {error_message}. "
            "The task may or may not have been executed on the actor."
        )
        super().__init__(hex_id, text)


class ActorAlreadyExistsError(ValueError, _MessageError):
    """An actor of that name lives in that namespace already."""

    def __init__(self, error_message: str) -> None:
        _MessageError.__init__(self, error_message)  # ValueError's own __init__ stands before it


class ActorHandleNotFoundError(ValueError, _MessageError):
    """No actor is known under that handle."""

    def __init__(self, error_message: str) -> None:
        _MessageError.__init__(self, error_message)  # ValueError's own __init__ stands before it


class ActorUnschedulableError(_MessageError):
    """The actor can never be placed."""

    _PREFIX = "The actor is not schedulable: "


class ActorPlacementGroupRemoved(RayError):
    """The placement group that the actor was to live in is gone."""

    def __str__(self) -> str:
        return "The placement group corresponding to this Actor has been removed."


class AsyncioActorExit(RayError):
    """Raised inside an async actor's method by ``exit_actor``."""


class WorkerCrashedError(RayError):
    """The worker process died while it ran the task."""

    def __str__(self) -> str:
        return (
            "The worker died unexpectedly while executing this task. "
            "Check python-core-worker-*.log files for more information."
        )


class _PlainMessageError(RayError):
    """An error that is one sentence, given as ``message``."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __str__(self) -> str:
        return self.message


class NodeDiedError(_PlainMessageError):
    """The node that ran the task died."""


class OutOfMemoryError(_PlainMessageError):
    """The node ran short of memory and ended the task's worker."""


class LocalRayletDiedError(RayError):
    """The node that the worker belongs to died."""

    def __str__(self) -> str:
        return "The task's local raylet died. Check raylet.out for more information."


class ObjectStoreFullError(RayError):
    """The object store is full, and nothing in it can be evicted or spilled."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}\nThe local object store is full of objects that are still in scope and cannot be "
            "evicted. Tip: Use the `ray memory` command to list active objects in the cluster."
        )


class OutOfDiskError(RayError):
    """The object store is full, and so is the disk to spill to."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}\nThe object cannot be created because the local object store is full and the local "
            "disk's utilization is over capacity (95% by default).Tip: Use `df` on this node to check disk usage and "
            "`ray memory` to check object store memory usage."
        )


class OwnerAddress(NamedTuple):
    """Where the owner of a lost object lived."""

    node_id: bytes
    worker_id: bytes
    ip_address: str
    port: int = 0


class ObjectLostError(RayError):
    """All copies of the object are gone.

    Args:
        object_ref_hex: id of the object, in hex.
        owner_address: an OwnerAddress, or any other form of it that the reporter knew, or None.
        call_site: where the ref was made, if that is recorded.
    """

    def __init__(self, object_ref_hex: str, owner_address: Any, call_site: str) -> None:
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site

    def _reason(self) -> str:
        return (
            f"All copies of {self.object_ref_hex} have been lost due to node failure. Check cluster logs "
            "(`/tmp/ray/session_latest/logs`) for more information about the failure."
        )

    def __str__(self) -> str:
        if self.call_site:
            origin = f"The ObjectRef was created at: {self.call_site}"
        else:
            origin = (
                "To see information about where this ObjectRef was created in Python, set the environment variable "
                "RAY_record_ref_creation_sites=1 during `ray start` and `ray.init()`."
            )
        return f"Failed to retrieve object {self.object_ref_hex}. {origin}\n\n{self._reason()}"


class ObjectFetchTimedOutError(ObjectLostError):
    """No copy of the object could be found in time."""

    def _reason(self) -> str:
        return (
            f"Fetch for object {self.object_ref_hex} timed out because no locations were found for the object. "
            "This may indicate a system-level bug."
        )


class ObjectFreedError(ObjectLostError):
    """The object was freed by hand."""

    def _reason(self) -> str:
        return (
            "The object was manually freed using the internal `free` call. Please ensure that `free` is only called "
            "once the object is no longer needed."
        )


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted while a ref to it was alive: a bug of the system."""

    def _reason(self) -> str:
        return "The object has already been deleted by the reference counting protocol. This should not happen."


class OwnerDiedError(ObjectLostError):
    """The process that owned the object is gone."""

    def _reason(self) -> str:
        logs, owner = "", ""
        if isinstance(self.owner_address, OwnerAddress):
            node_id, worker_id, ip, port = self.owner_address
            logs = f"/*{worker_id.hex()}*` at IP address {ip}"
            owner = (
                f"\n\nOwner worker ID: {worker_id.hex()}, owner node ID: {node_id.hex()}, owner address: {ip}:{port}."
            )
        return (
            "The object's owner has exited. This is the Python worker that first created the ObjectRef via `.remote()` "
            f"or `ray.put()`. Check cluster logs (`/tmp/ray/session_latest/logs{logs or '`'}) for more information "
            f"about the Python worker failure.{owner}"
        )


class ObjectReconstructionFailedError(ObjectLostError):
    """The object is lost, and could not be made again from its lineage."""

    REASON_MESSAGES: ClassVar[dict[int, str]] = {
        ErrorType[f"OBJECT_UNRECONSTRUCTABLE_{name}"]: f"The object cannot be reconstructed because {why}"
        for name, why in {
            "MAX_ATTEMPTS_EXCEEDED": "the maximum number of task retries has been exceeded. Consider increasing the "
            "number of retries using `@ray.remote(max_retries=N)`.",
            "LINEAGE_EVICTED": "its lineage has been evicted to reduce memory pressure. To prevent this error, set the "
            "environment variable RAY_max_lineage_bytes=<bytes> (default 1GB) during `ray start`.",
            "PUT": "it was created by ray.put(), which has no task lineage. To prevent this error, return the value "
            "from a task instead.",
            "RETRIES_DISABLED": "the task was created with max_retries=0. Consider enabling retries using "
            "`@ray.remote(max_retries=N)`.",
            "BORROWED": "it crossed an ownership boundary. Only the owner of an object can trigger reconstruction, but "
            "this worker borrowed the object from another worker.",
            "REF_NOT_FOUND": "its reference was not found in the reference counter. Please file an issue at "
            "https://github.com/ray-project/ray/issues.",
            "TASK_CANCELLED": "the task that would produce it was cancelled.",
            "LINEAGE_DISABLED": "lineage reconstruction is disabled system-wide (object_reconstruction_enabled=False).",
        }.items()
    }

    def __init__(
        self,
        object_ref_hex: str,
        reason: int | None = None,
        reason_message: str | None = None,
        owner_address: Any = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.reason = reason
        self.reason_message = reason_message

    def _reason(self) -> str:
        name = ErrorType(self.reason).name if self.reason else "UNKNOWN"
        message = self.reason_message or self.REASON_MESSAGES.get(
            self.reason or 0,
            "Unknown error reason. This should not happen, please file an issue at "
            "https://github.com/ray-project/ray/issues.",
        )
        return f"[{name}] {message}"


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator's stream of refs has ended."""


class OufOfBandObjectRefSerializationException(RayError):
    """A ref was pickled outside of the system while that is forbidden."""


class UnserializableException(RayError):
    """The task's exception came, but cannot be rebuilt here; its traceback can."""

    def __init__(self, original_stack_trace: str) -> None:
        self._original_stack_trace = original_stack_trace

    def __str__(self) -> str:
        return (
            "Failed to deserialize exception. Refer to https://docs.ray.io/en/latest/ray-core/objects/"
            "serialization.html#custom-serializers-for-exceptions for more information.\n"
            f"Original exception:\n{self._original_stack_trace}"
        )


class RuntimeEnvSetupError(RayError):
    """The runtime environment could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        self.error_message = error_message

    def __str__(self) -> str:
        lines = ["Failed to set up runtime environment."]
        if self.error_message:
            lines.append(self.error_message)
        return "\n".join(lines)


class RpcError(RayError):
    """A message to another process failed."""

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        self.message = message
        self.rpc_code = rpc_code

    def __str__(self) -> str:
        return self.message


class AuthenticationError(_PlainMessageError):
    """The peer's token is missing or wrong."""

    def __str__(self) -> str:
        return (
            f"{self.message}. Give every process of the cluster the same token: in the environment variable "
            "`RAY_AUTH_TOKEN`, or in a file that RAY_AUTH_TOKEN_PATH names."
        )


class PlasmaObjectNotAvailable(RayError):
    """The object is not in the local store."""


class CrossLanguageError(RayError):
    """An error of another language's worker, as its text."""

    def __init__(self, ray_exception: Any) -> None:
        text = getattr(ray_exception, "formatted_exception_string", ray_exception)
        super().__init__(f"An exception raised from another language:\n{text}")


class UserCodeException(RayError):
    """The user's code raised where no task did."""


class RaySystemError(RayError):
    """The system, not the user's code, failed."""

    def __init__(self, client_exc: Any, traceback_str: str | None = None) -> None:
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def __str__(self) -> str:
        text = f"System error: {self.client_exc}"
        return f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text


class RayChannelError(RaySystemError):
    """A compiled graph's channel failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A compiled graph's channel ran out of time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph has too many executions in flight."""


class RayDirectTransportError(RaySystemError):
    """A direct transfer of tensors failed."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again gave other items than the first time."""


RAY_EXCEPTION_TYPES = [
    value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, RayError) and not name.startswith("_")
]
