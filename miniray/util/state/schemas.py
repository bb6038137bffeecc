"""The rows that the state API gives, with Ray's names and columns: dataclasses whose fields are also keys.

A column is for everybody or for details; and it can be filtered by or not. What is for details is None unless details
were asked for.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

Row = TypeVar("Row", bound="StateSchema")


class Humanify:
    """How values are written for people."""

    @staticmethod
    def timestamp(milliseconds: float) -> str:
        """Milliseconds since the epoch as local date and time."""
        return str(datetime.datetime.fromtimestamp(milliseconds / 1000))

    @staticmethod
    def memory(size: float) -> str:
        """Bytes, with a unit."""
        for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if size >= unit:
                return f"{size / unit:.3f} {name}"
        return f"{size:.3f} B"

    @staticmethod
    def duration(milliseconds: float) -> str:
        """Milliseconds as hours, minutes and seconds."""
        return str(datetime.timedelta(milliseconds=milliseconds))

    @staticmethod
    def choice(value: Enum) -> str:
        """One of several, by its value."""
        return str(value.value)

    @staticmethod
    def events(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The changes of a task's state."""
        return [
            {**event, "created_ms": Humanify.timestamp(event["created_ms"])} if "created_ms" in event else event
            for event in events
        ]

    @staticmethod
    def node_resources(resources: dict[str, float]) -> dict[str, Any]:
        """The resources of a node."""
        return {name: Humanify.memory(value) if "memory" in name else value for name, value in resources.items()}


def column(
    *,
    filterable: bool = False,
    detail: bool = False,
    kind: type = str,
    show: Callable[[Any], Any] | None = None,
) -> Any:
    """A column. `kind`: what a filter's value is read as; `show`: how it is written for people."""
    about = {"filterable": filterable, "detail": detail, "kind": kind, "format_fn": show}
    return field(default=None, metadata=about) if detail else field(metadata=about)


class StateSchema:
    """A row: its columns are attributes and keys."""

    @classmethod
    def humanify(cls, state: dict[str, Any]) -> dict[str, Any]:
        """The same row, with times and sizes written for people."""
        for item in fields(cls):  # type: ignore[arg-type]
            show = item.metadata.get("format_fn")
            if show is not None and state.get(item.name) is not None:
                state[item.name] = show(state[item.name])
        return state

    @classmethod
    def list_columns(cls, detail: bool = True) -> list[str]:
        """The names of the columns, in order."""
        return [item.name for item in fields(cls) if detail or not item.metadata.get("detail")]  # type: ignore[arg-type]

    @classmethod
    def columns(cls) -> set[str]:
        """The names of all columns."""
        return set(cls.list_columns())

    @classmethod
    def filterable_columns(cls) -> set[str]:
        """The names of the columns that a filter may name."""
        return {item.name for item in fields(cls) if item.metadata.get("filterable")}  # type: ignore[arg-type]

    @classmethod
    def base_columns(cls) -> set[str]:
        """The names of the columns that are not for details."""
        return set(cls.list_columns(detail=False))

    @classmethod
    def detail_columns(cls) -> set[str]:
        """The names of all columns that a row with details has."""
        return set(cls.list_columns(detail=True))

    @classmethod
    def column_kinds(cls) -> dict[str, type]:
        """What the value of a filter on each column is read as."""
        return {item.name: item.metadata.get("kind", str) for item in fields(cls)}  # type: ignore[arg-type]

    def asdict(self) -> dict[str, Any]:
        """The row as a dictionary."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a column, or `default` if there is no such column."""
        return getattr(self, key, default)


def make_rows(schema: type[Row], values: list[dict[str, Any]], detail: bool) -> list[Row]:
    """Rows of dictionaries that have all columns (and possibly more).

    Quicker than the constructor, 0.8 us a row instead of 4: ten thousand rows are to be there in 50 ms.
    """
    names = schema.list_columns(detail)
    wanted = set(names)
    rows = []
    new = schema.__new__
    for given in values:
        row = new(schema)
        # Most tables give exactly the columns that were asked for. The others are None in the class.
        row.__dict__ = given if given.keys() == wanted else {name: given[name] for name in names}
        rows.append(row)
    return rows


@dataclass
class ActorState(StateSchema):
    """An actor."""

    actor_id: str = column(filterable=True)
    class_name: str = column(filterable=True)
    state: str = column(filterable=True)
    job_id: str = column(filterable=True)
    name: str | None = column(filterable=True)
    node_id: str | None = column(filterable=True)
    pid: int | None = column(filterable=True, kind=int)
    ray_namespace: str | None = column(filterable=True)
    serialized_runtime_env: str | None = column(detail=True)
    required_resources: dict[str, float] | None = column(detail=True)
    death_cause: dict[str, Any] | None = column(detail=True)
    is_detached: bool | None = column(detail=True, kind=bool)
    placement_group_id: str | None = column(detail=True, filterable=True)
    repr_name: str | None = column(detail=True, filterable=True)
    num_restarts: int = column(detail=True, kind=int)
    num_restarts_due_to_lineage_reconstruction: int = column(detail=True, kind=int)
    num_restarts_due_to_node_preemption: int = column(detail=True, kind=int)
    call_site: str | None = column(detail=True)
    label_selector: dict[str, str] | None = column(detail=True)
    fallback_strategy: dict[str, Any] | None = column(detail=True)


@dataclass
class PlacementGroupState(StateSchema):
    """A placement group."""

    placement_group_id: str = column(filterable=True)
    name: str = column(filterable=True)
    creator_job_id: str = column(filterable=True)
    state: str = column(filterable=True)
    bundles: list[dict[str, Any]] | None = column(detail=True)
    is_detached: bool | None = column(detail=True, filterable=True, kind=bool)
    stats: dict[str, Any] | None = column(detail=True)
    topology_strategy: dict[str, Any] | None = column(detail=True)
    topology_assignments: dict[str, Any] | None = column(detail=True)


@dataclass
class NodeState(StateSchema):
    """A virtual node. Times are in milliseconds since the epoch."""

    node_id: str = column(filterable=True)
    node_ip: str = column(filterable=True)
    is_head_node: bool = column(filterable=True, kind=bool)
    state: str = column(filterable=True)
    state_message: str | None = column()
    node_name: str = column(filterable=True)
    resources_total: dict[str, float] = column(show=Humanify.node_resources)
    labels: dict[str, str] = column()
    start_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    end_time_ms: int | None = column(detail=True, show=Humanify.timestamp)


class JobType(str, Enum):
    """How a job came."""

    SUBMISSION = "SUBMISSION"
    DRIVER = "DRIVER"


class JobStatus(str, Enum):
    """How a job fares."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def __str__(self) -> str:
        return str(self.value)

    def is_terminal(self) -> bool:
        """Whether it ends there."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


@dataclass
class DriverInfo:
    """The driver of a job. `id` is the job's."""

    id: str
    node_ip_address: str
    pid: str


@dataclass
class JobState(StateSchema):
    """A job. Times are in milliseconds since the epoch."""

    type: JobType = column(show=Humanify.choice)
    job_id: str | None = column(filterable=True)
    submission_id: str | None = column(filterable=True)
    driver_info: DriverInfo | None = column()
    status: JobStatus = column(filterable=True, show=Humanify.choice)
    entrypoint: str = column(filterable=True)
    message: str | None = column()
    error_type: str | None = column(filterable=True)
    start_time: int | None = column(detail=True, show=Humanify.timestamp)
    end_time: int | None = column(detail=True, show=Humanify.timestamp)
    metadata: dict[str, str] | None = column(detail=True)
    runtime_env: dict[str, Any] | None = column(detail=True)
    driver_agent_http_address: str | None = column(detail=True)
    driver_node_id: str | None = column(detail=True)
    driver_exit_code: int | None = column(detail=True)


@dataclass
class WorkerState(StateSchema):
    """A worker, or a driver. Times are in milliseconds since the epoch."""

    worker_id: str = column(filterable=True)
    is_alive: bool = column(filterable=True, kind=bool)
    worker_type: str = column(filterable=True)
    exit_type: str | None = column(filterable=True)
    node_id: str = column(filterable=True)
    ip: str = column(filterable=True)
    pid: int = column(filterable=True, kind=int)
    exit_detail: str | None = column(detail=True)
    worker_launch_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    worker_launched_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    start_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    end_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    debugger_port: int | None = column(detail=True, filterable=True, kind=int)
    num_paused_threads: int | None = column(detail=True, filterable=True, kind=int)


@dataclass
class ClusterEventState(StateSchema):
    """Something that happened to the session as a whole."""

    severity: str = column(filterable=True)
    time: str = column()
    source_type: str = column(filterable=True)
    message: str = column()
    event_id: str = column(filterable=True)
    custom_fields: dict[str, Any] | None = column(detail=True)


@dataclass
class TaskState(StateSchema):
    """One attempt of a task. Times are in milliseconds since the epoch."""

    task_id: str = column(filterable=True)
    attempt_number: int = column(filterable=True, kind=int)
    name: str = column(filterable=True)
    state: str = column(filterable=True)
    job_id: str = column(filterable=True)
    actor_id: str | None = column(filterable=True)
    type: str = column(filterable=True)
    func_or_class_name: str = column(filterable=True)
    parent_task_id: str = column(filterable=True)
    node_id: str | None = column(filterable=True)
    worker_id: str | None = column(filterable=True)
    worker_pid: int | None = column(filterable=True, kind=int)
    error_type: str | None = column(filterable=True)
    language: str | None = column(detail=True, filterable=True)
    required_resources: dict[str, float] | None = column(detail=True)
    runtime_env_info: dict[str, Any] | None = column(detail=True)
    placement_group_id: str | None = column(detail=True, filterable=True)
    events: list[dict[str, Any]] | None = column(detail=True, show=Humanify.events)
    profiling_data: dict[str, Any] | None = column(detail=True)
    creation_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    start_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    end_time_ms: int | None = column(detail=True, show=Humanify.timestamp)
    task_log_info: dict[str, Any] | None = column(detail=True)
    error_message: str | None = column(detail=True)
    is_debugger_paused: bool | None = column(detail=True, filterable=True, kind=bool)
    call_site: str | None = column(detail=True)
    label_selector: dict[str, str] | None = column(detail=True)
    fallback_strategy: dict[str, Any] | None = column(detail=True)


@dataclass
class ObjectState(StateSchema):
    """An object as one process holds it. Sizes are in bytes, -1: not known."""

    object_id: str = column(filterable=True)
    object_size: int = column(filterable=True, kind=int, show=Humanify.memory)
    task_status: str = column(filterable=True)
    attempt_number: int = column(filterable=True, kind=int)
    reference_type: str = column(filterable=True)
    call_site: str = column(filterable=True)
    type: str = column(filterable=True)
    pid: int = column(filterable=True, kind=int)
    ip: str = column(filterable=True)


@dataclass
class RuntimeEnvState(StateSchema):
    """A runtime environment on a node."""

    runtime_env: dict[str, Any] = column(filterable=True)
    success: bool = column(filterable=True, kind=bool)
    creation_time_ms: float | None = column(show=Humanify.duration)
    node_id: str = column(filterable=True)
    ref_cnt: int | None = column(detail=True, kind=int)
    error: str | None = column(detail=True, filterable=True)
