"""The exception tree: names, inheritance, fields, texts, pickling."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from miniray import exceptions as e
from miniray.ids import TaskID

TREE = {
    "RayError": "Exception",
    "RayTaskError": "RayError",
    "TaskCancelledError": "RayError",
    "TaskUnschedulableError": "RayError",
    "TaskPlacementGroupRemoved": "RayError",
    "TaskTimeoutError": "RayError TimeoutError",
    "GetTimeoutError": "RayError TimeoutError",
    "PendingCallsLimitExceeded": "RayError",
    "RayActorError": "RayError",
    "ActorDiedError": "RayActorError",
    "ActorUnavailableError": "RayActorError",
    "ActorAlreadyExistsError": "ValueError RayError",
    "ActorHandleNotFoundError": "ValueError RayError",
    "ActorUnschedulableError": "RayError",
    "ActorPlacementGroupRemoved": "RayError",
    "AsyncioActorExit": "RayError",
    "WorkerCrashedError": "RayError",
    "NodeDiedError": "RayError",
    "LocalRayletDiedError": "RayError",
    "OutOfMemoryError": "RayError",
    "ObjectStoreFullError": "RayError",
    "OutOfDiskError": "RayError",
    "ObjectLostError": "RayError",
    "ObjectFetchTimedOutError": "ObjectLostError",
    "ObjectFreedError": "ObjectLostError",
    "ObjectReconstructionFailedError": "ObjectLostError",
    "OwnerDiedError": "ObjectLostError",
    "ReferenceCountingAssertionError": "ObjectLostError AssertionError",
    "ObjectRefStreamEndOfStreamError": "RayError",
    "OufOfBandObjectRefSerializationException": "RayError",
    "UnserializableException": "RayError",
    "RuntimeEnvSetupError": "RayError",
    "RpcError": "RayError",
    "AuthenticationError": "RayError",
    "PlasmaObjectNotAvailable": "RayError",
    "CrossLanguageError": "RayError",
    "UserCodeException": "RayError",
    "RaySystemError": "RayError",
    "RayChannelError": "RaySystemError",
    "RayChannelTimeoutError": "RayChannelError TimeoutError",
    "RayCgraphCapacityExceeded": "RaySystemError",
    "RayDirectTransportError": "RaySystemError",
    "StreamingGeneratorReplayInconsistentError": "RaySystemError",
}

CONTEXT = e.ActorDiedErrorContext(
    actor_id=b"a" * 16,
    class_name="K",
    error_message="It was killed.",
    pid=77,
    name="nm",
    ray_namespace="ns",
    node_ip_address="1.2.3.4",
)
OWNER = e.OwnerAddress(b"n" * 28, b"w" * 28, "1.2.3.4", 7)
TASK_ERROR = e.RayTaskError(
    "A.__init__",
    'Traceback (most recent call last):\n  File "x", line 1, in f\n    y\nValueError: boom\n',
    ValueError("boom"),
    "ray::A.__init__",
    5,
    "1.1.1.1",
    "repr",
    "ac" * 16,
)
NOT_CREATED = (
    "To see information about where this ObjectRef was created in Python, set the environment variable "
    "RAY_record_ref_creation_sites=1 during `ray start` and `ray.init()`."
)
LOGS = "Check cluster logs (`/tmp/ray/session_latest/logs`) for more information about the"

TEXTS: list[tuple[e.RayError, str]] = [
    (e.RayError("m"), "m"),
    (e.GetTimeoutError("m"), "m"),
    (e.TaskTimeoutError("f", 1.5), "The task f ran longer than its time limit of 1.5 s."),
    (e.TaskCancelledError(), ""),
    (e.TaskCancelledError(error_message="m"), "m"),
    (e.TaskCancelledError(TaskID.nil()), f"Task: TaskID({'ff' * 24}) was cancelled. "),
    (e.TaskCancelledError("abc", "why"), "Task: abc was cancelled. why"),
    (e.TaskUnschedulableError("m"), "The task is not schedulable: m"),
    (e.TaskPlacementGroupRemoved(), "The placement group corresponding to this task has been removed."),
    (e.ActorUnschedulableError("m"), "The actor is not schedulable: m"),
    (e.ActorPlacementGroupRemoved(), "The placement group corresponding to this Actor has been removed."),
    (e.ActorAlreadyExistsError("m"), "m"),
    (e.ActorHandleNotFoundError("m"), "m"),
    (e.RayActorError(), "The actor experienced an error before finishing this task."),
    (e.RayActorError("ab", "m", True, True), "m"),
    (
        e.ActorUnavailableError("gone", b"a" * 16),
        f"The actor {'61' * 16} is unavailable: gone. The task may or may not have been executed on the actor.",
    ),
    (e.ActorDiedError(), "The actor died unexpectedly before finishing this task."),
    (
        e.ActorDiedError(CONTEXT),
        "The actor died unexpectedly before finishing this task.\n\tclass_name: K\n\tactor_id: "
        + "61" * 16
        + "\n\tpid: 77"
        "\n\tname: nm\n\tnamespace: ns\n\tip: 1.2.3.4\nIt was killed.",
    ),
    (
        e.ActorDiedError(e.ActorDiedErrorContext(b"a" * 16, "K", never_started=True)),
        "The actor died unexpectedly before finishing this task.\n\tclass_name: K\n\tactor_id: " + "61" * 16 + "\n\n"
        "The actor never ran - it was cancelled before it started running.",
    ),
    (
        e.ActorDiedError(TASK_ERROR),
        "The actor died because of an error raised in its creation task, \x1b[36mray::A.__init__()\x1b[39m "
        f"(pid=5, ip=1.1.1.1, actor_id={'ac' * 16}, repr=repr)\n"
        '  File "x", line 1, in f\n    y\nValueError: boom',
    ),
    (
        e.WorkerCrashedError(),
        "The worker died unexpectedly while executing this task. Check python-core-worker-*.log files for more "
        "information.",
    ),
    (e.NodeDiedError("m"), "m"),
    (e.OutOfMemoryError("m"), "m"),
    (e.LocalRayletDiedError(), "The task's local raylet died. Check raylet.out for more information."),
    (
        e.ObjectStoreFullError("m"),
        "m\nThe local object store is full of objects that are still in scope and cannot be evicted. Tip: Use the "
        "`ray memory` command to list active objects in the cluster.",
    ),
    (
        e.OutOfDiskError("m"),
        "m\nThe object cannot be created because the local object store is full and the local disk's utilization is "
        "over capacity (95% by default).Tip: Use `df` on this node to check disk usage and `ray memory` to check "
        "object store memory usage.",
    ),
    (
        e.ObjectLostError("ab", None, ""),
        f"Failed to retrieve object ab. {NOT_CREATED}\n\nAll copies of ab have been lost due to node failure. "
        f"{LOGS} failure.",
    ),
    (
        e.ObjectFetchTimedOutError("ab", None, "here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\nFetch for object ab timed out because no "
        "locations were found for the object. This may indicate a system-level bug.",
    ),
    (
        e.ObjectFreedError("ab", None, "here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\nThe object was manually freed using the "
        "internal `free` call. Please ensure that `free` is only called once the object is no longer needed.",
    ),
    (
        e.ReferenceCountingAssertionError("ab", None, "here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\nThe object has already been deleted by "
        "the reference counting protocol. This should not happen.",
    ),
    (
        e.OwnerDiedError("ab", None, "here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\nThe object's owner has exited. This is "
        "the Python worker that first created the ObjectRef via `.remote()` or `ray.put()`. "
        f"{LOGS} Python worker failure.",
    ),
    (
        e.OwnerDiedError("ab", OWNER, "here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\nThe object's owner has exited. This is "
        "the Python worker that first created the ObjectRef via `.remote()` or `ray.put()`. Check cluster logs "
        f"(`/tmp/ray/session_latest/logs/*{'77' * 28}*` at IP address 1.2.3.4) for more information about the Python "
        f"worker failure.\n\nOwner worker ID: {'77' * 28}, owner node ID: {'6e' * 28}, owner address: 1.2.3.4:7.",
    ),
    (
        e.ObjectReconstructionFailedError("ab", 12, None, None, "here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\n"
        "[OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED] The object cannot be reconstructed because the maximum "
        "number of task retries has been exceeded. Consider increasing the number of retries using "
        "`@ray.remote(max_retries=N)`.",
    ),
    (
        e.ObjectReconstructionFailedError("ab", None, "why", call_site="here"),
        "Failed to retrieve object ab. The ObjectRef was created at: here\n\n[UNKNOWN] why",
    ),
    (
        e.UnserializableException("TB"),
        "Failed to deserialize exception. Refer to https://docs.ray.io/en/latest/ray-core/objects/serialization.html"
        "#custom-serializers-for-exceptions for more information.\nOriginal exception:\nTB",
    ),
    (e.RuntimeEnvSetupError(), "Failed to set up runtime environment."),
    (e.RuntimeEnvSetupError("m"), "Failed to set up runtime environment.\nm"),
    (e.RpcError("m", 5), "m"),
    (e.CrossLanguageError("jvm"), "An exception raised from another language:\njvm"),
    (e.RaySystemError("m"), "System error: m"),
    (e.RaySystemError("m", "TB"), "System error: m\ntraceback: TB"),
    (e.RayChannelTimeoutError("m"), "System error: m"),
]


@pytest.mark.parametrize("name", TREE)
def test_the_tree_is_rays(name: str) -> None:
    cls = getattr(e, name)
    assert issubclass(cls, e.RayError)
    for base in TREE[name].split():
        expected = getattr(e, base, None) or getattr(__import__("builtins"), base)
        assert issubclass(cls, expected)
    assert cls in e.RAY_EXCEPTION_TYPES


def test_the_docstring_draws_every_class() -> None:
    public = {cls.__name__ for cls in e.RAY_EXCEPTION_TYPES}
    assert public == set(TREE)
    assert e.__doc__ is not None
    drawn = {line.strip("│├└─ ").split(" ")[0] for line in e.__doc__.splitlines() if "─" in line} | {"RayError"}
    assert drawn == public


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=lambda value: type(value).__name__)
def test_the_text_is_rays(error: e.RayError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", [error for error, _ in TEXTS], ids=lambda error: type(error).__name__)
def test_every_error_survives_pickling_and_its_own_bytes(error: e.RayError) -> None:
    for copy in (pickle.loads(pickle.dumps(error)), e.RayError.from_bytes(error.to_bytes())):
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert repr(copy) == repr(error)
        assert {k: repr(v) for k, v in vars(copy).items()} == {k: repr(v) for k, v in vars(error).items()}


def test_errors_made_with_keywords_survive_pickling() -> None:
    error = e.ObjectLostError(object_ref_hex="ab", owner_address=None, call_site="x")
    assert pickle.loads(pickle.dumps(error)).object_ref_hex == "ab"


def test_fields_of_an_actor_error() -> None:
    error = e.RayActorError("ab", "m", actor_init_failed=True, preempted=True)
    assert (error.actor_id, error.actor_init_failed, error.preempted) == ("ab", True, True)
    died = e.ActorDiedError.from_task_error(TASK_ERROR)
    assert (died.actor_id, died.actor_init_failed, died.preempted) == ("ac" * 16, True, False)
    taken = e.ActorDiedError(CONTEXT._replace(preempted=True))
    assert (taken.actor_id, taken.preempted) == ("61" * 16, True)
    assert e.ActorUnavailableError("m", None).actor_id is None


def test_a_message_is_required_where_ray_requires_it() -> None:
    classes: list[Any] = [e.TaskUnschedulableError, e.NodeDiedError, e.RaySystemError, e.UnserializableException]
    for cls in [*classes, e.ActorAlreadyExistsError]:
        with pytest.raises(TypeError):
            cls()


def test_texts_say_ray_and_never_a_private_path() -> None:
    assert e.exception_path("WorkerCrashedError") == "ray.exceptions.WorkerCrashedError"
    assert e.RayError.__module__ == "miniray.exceptions"


def test_all_reasons_have_a_message() -> None:
    for reason in e.ErrorType:
        assert reason.name in str(e.ObjectReconstructionFailedError("ab", reason)) or reason == 0
