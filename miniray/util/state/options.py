"""What can be asked for: kinds of rows, and the options of a question, under Ray's names."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any, Union

DEFAULT_RPC_TIMEOUT = 30  #: seconds
DEFAULT_LIMIT = 100  #: rows
DEFAULT_LOG_LIMIT = 1000  #: lines
DEFAULT_DOWNLOAD_FILENAME = "file.txt"


def _environment_integer(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default


#: rows that a caller may ask for
RAY_MAX_LIMIT_FROM_API_SERVER = _environment_integer("RAY_MAX_LIMIT_FROM_API_SERVER", 10_000)
#: rows that are looked at when nothing is filtered; the newest ones
RAY_MAX_LIMIT_FROM_DATA_SOURCE = _environment_integer("RAY_MAX_LIMIT_FROM_DATA_SOURCE", 10_000)

SupportedFilterType = Union[str, bool, int, float]
PredicateType = str
Filter = tuple[str, PredicateType, SupportedFilterType]


@unique
class StateResource(Enum):
    """What can be listed."""

    ACTORS = "actors"
    JOBS = "jobs"
    PLACEMENT_GROUPS = "placement_groups"
    NODES = "nodes"
    WORKERS = "workers"
    TASKS = "tasks"
    OBJECTS = "objects"
    RUNTIME_ENVS = "runtime_envs"
    CLUSTER_EVENTS = "cluster_events"


@unique
class SummaryResource(Enum):
    """What can be summarized."""

    ACTORS = "actors"
    TASKS = "tasks"
    OBJECTS = "objects"


def _server_timeout(timeout: float, multiplier: float) -> int:
    """Seconds that the head may take, so that what it says arrives before the caller gives up."""
    return max(1, int(timeout * multiplier))


@dataclass
class ListApiOptions:
    """How to list.

    Args:
        limit: rows, at most.
        timeout: seconds.
        detail: fill the columns that are for details, too.
        filters: (column, "=" or "!=", value), all of which a row must meet.
        exclude_driver: leave out the tasks that stand for drivers.
        server_timeout_multiplier: share of `timeout` that the head may take.

    Raises:
        ValueError: a filter is not three values, or its predicate is another.
    """

    limit: int = DEFAULT_LIMIT
    timeout: int = DEFAULT_RPC_TIMEOUT
    detail: bool = False
    filters: list[Filter] | None = field(default_factory=list)
    exclude_driver: bool = True
    server_timeout_multiplier: float = 0.8

    def __post_init__(self) -> None:
        self.timeout = _server_timeout(self.timeout, self.server_timeout_multiplier)
        self.filters = [check_filter(given) for given in self.filters or ()]

    def has_conflicting_filters(self) -> bool:
        """Whether no row can meet the filters: two of them want different values of one column. Warns if so."""
        wanted: dict[str, Any] = {}
        for key, predicate, value in self.filters or ():
            if predicate == "=" and wanted.setdefault(key, value) != value:
                warnings.warn(
                    f"There are multiple '=' filters with the same key '{key}' but different values"
                    f"'{wanted[key]}' & '{value}'. Empty result set will be returned",
                    UserWarning,
                    stacklevel=2,
                )
                return True
        return False


def check_filter(given: Any) -> Filter:
    """A filter as it has to be.

    Raises:
        ValueError: it is not.
    """
    if len(given) != 3:
        raise ValueError(f"The given filter has incorrect input type, {given}. Provide (key, predicate, value) tuples.")
    key, predicate, value = given
    if predicate not in ("=", "!="):
        raise ValueError(f"Unsupported filter predicate {predicate} is given. Available predicates: =, !=.")
    if not isinstance(value, (str, bool, int, float)):
        raise ValueError(f"The value of the filter on {key} should be a valid string, boolean or number, not {value!r}")
    return key, predicate, value


@dataclass
class GetApiOptions:
    """How to get one row. `timeout` in seconds."""

    timeout: int = DEFAULT_RPC_TIMEOUT
    server_timeout_multiplier: float = 0.8

    def __post_init__(self) -> None:
        self.timeout = _server_timeout(self.timeout, self.server_timeout_multiplier)


@dataclass
class SummaryApiOptions:
    """How to summarize. `timeout` in seconds; `filters` as in `ListApiOptions`."""

    timeout: int = DEFAULT_RPC_TIMEOUT
    filters: list[Filter] | None = field(default_factory=list)
    summary_by: str | None = None


@dataclass
class GetLogOptions:
    """Which log to read.

    Args:
        timeout: seconds.
        media_type: "file", or "stream" to follow it.
        lines: from the end; -1: all.
        interval: seconds between two looks at a file that is followed.
        suffix: "out" or "err", where a log is not named by its file.

    Raises:
        ValueError: nothing says which log is meant, or the suffix is another.
    """

    timeout: int
    node_id: str | None = None
    node_ip: str | None = None
    media_type: str = "file"
    filename: str | None = None
    download_filename: str = DEFAULT_DOWNLOAD_FILENAME
    actor_id: str | None = None
    task_id: str | None = None
    attempt_number: int = 0
    pid: int | None = None
    lines: int = DEFAULT_LOG_LIMIT
    interval: float | None = None
    suffix: str = "out"
    submission_id: str | None = None

    def __post_init__(self) -> None:
        if self.pid:
            self.pid = int(self.pid)
        if self.interval:
            self.interval = float(self.interval)
        self.lines = int(self.lines)
        if self.task_id:
            self.attempt_number = int(self.attempt_number)
        if self.media_type not in ("file", "stream"):
            raise ValueError(f"Invalid media type: {self.media_type}")
        if not (self.node_id or self.node_ip or self.actor_id or self.task_id or self.submission_id):
            raise ValueError(
                "node_id or node_ip must be provided as constructor arguments when no actor or task_id is supplied as "
                "arguments."
            )
        if self.node_id and self.node_ip:
            raise ValueError(
                "Both node_id and node_ip are given. Only one of them can be provided. "
                f"Given node id: {self.node_id}, given node ip: {self.node_ip}"
            )
        if not (self.actor_id or self.task_id or self.pid or self.filename or self.submission_id):
            raise ValueError(
                "None of actor_id, task_id, pid, submission_id or filename is provided. At least one of them is "
                "required to fetch logs."
            )
        if self.suffix not in ("out", "err"):
            raise ValueError(f"Invalid suffix: {self.suffix}. Must be one of 'out' or 'err'.")
