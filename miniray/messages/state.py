"""What processes say when somebody wants to know what is going on: the questions behind the state API.

Nobody reports what it does while it does it. A worker keeps a line for each task that has ended, and mails them in
batches; what is pending, queued or running is asked for when somebody wants to know it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct


class TaskRow(Struct, array_like=True, gc=False):
    """One attempt of a task as one process knows it; part of `TaskEvents` and of `StateReport` for "tasks".

    Times are in seconds since the epoch, 0.0: not yet. What is not known is empty.
    """

    task_id: bytes
    attempt: int
    state: str  #: Ray's name
    kind: int  #: `TaskPush.kind`
    name: str
    function: str
    job_id: bytes
    parent_task_id: bytes
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    node_id: bytes = b""
    worker_id: bytes = b""
    pid: int = 0
    error_type: str = ""
    error: str = ""
    resources: dict[str, int] | None = None  #: units of 1/10000; None: a plain task's one CPU
    runtime_env: str = ""
    placement_group_id: bytes = b""
    title: str = ""  #: module and function, for the timeline


class EndedTasks(Struct, array_like=True):
    """Tasks that have ended in one process; part of `TaskEvents`. See `state_machines.task_rows`."""

    node_id: bytes
    worker_id: bytes
    pid: int
    #: task id, attempt, kind, name, job, parent, options, created, ended, duration, status, function id (or method),
    #: (error type, text)
    events: list[Any]
    names: list[Any]  #: function, name, kind; and the name to be shown, that of the function, that for the timeline
    settings: list[Any]  #: options, kind; and resources, runtime environment, placement group
    failures: list[Any]  #: `TaskRow`s of tasks that no worker has answered


class TaskEvents(Struct, array_like=True, tag=68):
    """Any core worker to head: tasks that have ended since last time. `events` is an `EndedTasks` with `count` of them,
    which the head keeps as it is.
    """

    count: int
    events: Raw


class ReportState(Struct, array_like=True, tag=110):
    """Head to any core worker: say what you know of `what` ("tasks", "objects", "actors"), `limit` rows at most.
    Answered by `StateReport` with that `number`.
    """

    number: int
    what: str
    limit: int


class StateReport(Struct, array_like=True, tag=111):
    """Any core worker to head: the answer to `ReportState`. `rows` is a list that the head passes on as it is; there
    were `total`.
    """

    number: int
    rows: Raw
    total: int


class ObjectRow(Struct, array_like=True, gc=False):
    """One object as one process knows it; part of `StateReport` for "objects"."""

    object_id: bytes
    owner_id: bytes
    size: int  #: bytes; -1: not known
    reference_type: str  #: Ray's name
    task_status: str
    attempt: int
    local: int = 0  #: refs in this process
    submitted: int = 0  #: pending tasks that have it among their arguments
    contained_in: int = 0  #: objects that contain it
    borrowers: int = 0
    call_site: str = ""
    node_id: bytes = b""  #: where the value lies in shared memory
