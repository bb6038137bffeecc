"""`StateApiClient`: lists, gets and summarizes; filters and limits; says what is missing."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

from miniray.util.state import summaries, tables
from miniray.util.state.exception import RayStateApiException
from miniray.util.state.options import (
    RAY_MAX_LIMIT_FROM_API_SERVER,
    Filter,
    GetApiOptions,
    ListApiOptions,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
)
from miniray.util.state.schemas import (
    ActorState,
    ClusterEventState,
    DriverInfo,
    JobState,
    JobStatus,
    JobType,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateSchema,
    TaskState,
    WorkerState,
    make_rows,
)
from miniray.util.state.source import Source

logger = logging.getLogger(__name__)

SCHEMAS: dict[StateResource, type[StateSchema]] = {
    StateResource.ACTORS: ActorState,
    StateResource.JOBS: JobState,
    StateResource.PLACEMENT_GROUPS: PlacementGroupState,
    StateResource.NODES: NodeState,
    StateResource.WORKERS: WorkerState,
    StateResource.TASKS: TaskState,
    StateResource.OBJECTS: ObjectState,
    StateResource.RUNTIME_ENVS: RuntimeEnvState,
    StateResource.CLUSTER_EVENTS: ClusterEventState,
}
#: The column that a row is got by.
ID_COLUMN = {
    StateResource.NODES: "node_id",
    StateResource.ACTORS: "actor_id",
    StateResource.PLACEMENT_GROUPS: "placement_group_id",
    StateResource.WORKERS: "worker_id",
    StateResource.TASKS: "task_id",
    StateResource.OBJECTS: "object_id",
    StateResource.JOBS: "submission_id",
}
#: Bytes of ids that a filter may name.
_ID_SIZES = {
    StateResource.ACTORS: {"actor_id": 16, "job_id": 4},
    StateResource.TASKS: {"task_id": 24, "actor_id": 16, "job_id": 4},
}
_FAILED = "API server internal error. See dashboard.log file for more details. Error: "
_NO_CALL_SITES = (
    "Callsite is not being recorded. To record callsite information for each ObjectRef created, set env variable "
    "RAY_record_ref_creation_sites=1 during `ray start` and `ray.init`."
)


#: Rows; inside `StateApiClient` the name `list` is its method.
Rows = list[Any]


class Listing:
    """What a question has found: the rows, and how many were left out where."""

    def __init__(self, rows: Rows, table: tables.Table, num_filtered: int) -> None:
        self.rows = rows
        self.total = table.total
        self.num_after_truncation = table.found
        self.num_filtered = num_filtered
        self.warning = table.warning


class StateApiClient:
    """Asks about the state of a session; one client can ask many times.

    Args:
        address: None: this process's session, else that of ``RAY_ADDRESS``, else the newest running one.
        cookies: for Ray's HTTP server; nothing here.
        headers: the same.

    Raises:
        ConnectionError: there is no running session.

    Source: https://docs.ray.io/en/latest/ray-observability/reference/api.html
    """

    def __init__(
        self,
        address: str | None = None,
        cookies: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
    ) -> None:
        self._source = Source(address)
        self._address = self._source.address

    def list(
        self,
        resource: StateResource,
        options: ListApiOptions,
        raise_on_missing_output: bool,
        _explain: bool = False,
    ) -> Rows:
        """The rows of one kind.

        Args:
            resource: which kind.
            options: which of them, and how many.
            raise_on_missing_output: raise when there were more than could be looked at.
            _explain: warn of what was left out.

        Raises:
            RayStateApiException: a filter or the limit cannot be; or output is missing.
        """
        if options.has_conflicting_filters():
            return []
        found = self._find(resource, options, _explain)
        if raise_on_missing_output:
            _raise_on_missing_output(resource.value, found)
        if _explain:
            _explain_listing(resource, found)
        return self._to_rows(resource, found.rows, options.detail)

    def get(self, resource: StateResource, id: str, options: GetApiOptions | None, _explain: bool = False) -> Any:
        """The row with this id: None if there is none; a list for objects, and for tasks with several attempts.

        Raises:
            ValueError: rows of this kind have no id.
            RayStateApiException: this is no id.
        """
        if resource not in ID_COLUMN:
            raise ValueError(f"Can't get {resource.name} by id.")
        timeout = (options or GetApiOptions()).timeout
        wanted = ListApiOptions(
            limit=RAY_MAX_LIMIT_FROM_API_SERVER,
            timeout=timeout,
            detail=True,
            filters=[(ID_COLUMN[resource], "=", id)],
            server_timeout_multiplier=1,
        )
        rows = self._to_rows(resource, self._find(resource, wanted, _explain).rows, True)
        if not rows:
            return None
        return rows if resource is StateResource.OBJECTS or len(rows) > 1 else rows[0]

    def summary(
        self,
        resource: SummaryResource,
        *,
        options: SummaryApiOptions,
        raise_on_missing_output: bool,
        _explain: bool = False,
    ) -> dict[str, Any]:
        """How many rows of one kind there are, by name and state.

        Raises:
            RayStateApiException: output is missing.
        """
        kind = StateResource(resource.value)
        wanted = ListApiOptions(
            limit=RAY_MAX_LIMIT_FROM_API_SERVER, timeout=options.timeout, filters=options.filters, detail=False
        )
        found = self._find(kind, wanted, _explain)
        if raise_on_missing_output:
            _raise_on_missing_output(kind.value, found)
        if _explain and found.warning:
            warnings.warn(found.warning, stacklevel=3)
        return {"cluster": summaries.SUMMARIES[resource](found.rows)}

    def _find(self, resource: StateResource, options: ListApiOptions, explain: bool) -> Listing:
        if options.limit > RAY_MAX_LIMIT_FROM_API_SERVER:
            raise RayStateApiException(
                f"{_FAILED}Given limit {options.limit} exceeds the supported limit {RAY_MAX_LIMIT_FROM_API_SERVER}. "
                "Use a lower limit, or set the `RAY_MAX_LIMIT_FROM_API_SERVER` environment variable to a larger value."
            )
        if options.limit < 0:
            raise RayStateApiException(
                f"{_FAILED}Stop argument for islice() must be None or an integer: 0 <= x <= sys.maxsize."
            )
        filters = options.filters or []
        schema = SCHEMAS[resource]
        tests = [_test(resource, schema, given) for given in filters]
        begun = time.monotonic()
        table = tables.read(
            self._source,
            resource,
            detail=options.detail,
            most=None if filters else options.limit,
            timeout=options.timeout,
        )
        if explain:
            logger.info("The head at %s answered within %.3f s.", self._address, time.monotonic() - begun)
        rows = table.rows
        for key, is_equal, value in tests:
            rows = [row for row in rows if (_comparable(row.get(key)) == value) is is_equal]
        return Listing(rows[: options.limit], table, len(rows) if filters else table.found)

    def _to_rows(self, resource: StateResource, rows: Rows, detail: bool) -> Rows:
        if resource is StateResource.JOBS:
            for row in rows:
                row["type"], row["status"] = JobType(row["type"]), JobStatus(row["status"])
                row["driver_info"] = DriverInfo(**row["driver_info"])
        return make_rows(SCHEMAS[resource], rows, detail)


def _comparable(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _test(resource: StateResource, schema: type[StateSchema], given: Filter) -> tuple[str, bool, Any]:
    """A filter as (column, whether equal, value in the column's type).

    Raises:
        RayStateApiException: no such column can be filtered by, or not by this value.
    """
    key, predicate, value = given
    filterable = schema.filterable_columns()
    if key not in filterable:
        raise RayStateApiException(
            f"{_FAILED}The given filter column {key} is not supported. Enter filters with –-filter key=value or "
            f"–-filter key!=value Supported filter columns: {filterable}"
        )
    size = _ID_SIZES.get(resource, {}).get(key)
    if size is not None and predicate == "=":
        _check_id(str(value), size)
    kind = schema.column_kinds()[key]
    try:
        if resource is StateResource.TASKS and predicate == "=" and kind is int:
            return key, True, _as_integer(value)
        return key, predicate == "=", _converted(key, kind, value)
    except ValueError as error:
        raise RayStateApiException(f"{_FAILED}{error}") from None


def _check_id(text: str, size: int) -> None:
    try:
        length = len(bytes.fromhex(text))
    except ValueError as error:
        raise RayStateApiException(f"{_FAILED}{error}") from None
    if length != size:
        raise RayStateApiException(f"{_FAILED}ID string needs to have length {size}, got {length}")


def _as_integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"Failed to convert a value {value} of type {type(value)} to <class 'int'>") from None


def _converted(key: str, kind: type, value: Any) -> Any:
    if kind is int and not isinstance(value, bool):
        try:
            return int(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"Invalid filter `--filter {key} {value}` for a int type column. Please provide an integer filter "
                f"`--filter {key} [int]`"
            ) from None
    if kind is bool and not isinstance(value, bool):
        text = str(value).lower()
        if text in ("true", "1"):
            return True
        if text in ("false", "0"):
            return False
        raise ValueError(
            f"Invalid filter `--filter {key} {value}` for a boolean type column. Please provide `--filter {key} "
            f"[True|true|1]` for True or `--filter {key} [False|false|0]` for False."
        )
    return _comparable(value)


def _raise_on_missing_output(what: str, found: Listing) -> None:
    if found.total == found.num_after_truncation:
        return
    raise RayStateApiException(
        f"Failed to retrieve all {found.total} {what} from the cluster because they are not reachable due to data "
        f"truncation. It happens when the returned data is too large (> {found.num_after_truncation}) "
        "To avoid raising an exception and allow having missing output, set `raise_on_missing_output=False`. "
    )


def _explain_listing(resource: StateResource, found: Listing) -> None:
    if found.warning:
        warnings.warn(found.warning, stacklevel=4)
    kept, total = found.num_after_truncation, found.total
    if total > kept:
        warnings.warn(
            f"The returned data may contain incomplete result. {kept} ({total} total from the cluster) "
            f"{resource.value} are retrieved from the data source. {total - kept} entries have been truncated. Max of "
            f"{kept} entries are retrieved from data source to prevent over-sized payloads.",
            stacklevel=4,
        )
    if found.num_filtered > len(found.rows):
        warnings.warn(
            f"Limit last {len(found.rows)} entries (Total {found.num_filtered}). Use `--filter` to reduce the amount "
            "of data to return or setting a higher limit with `--limit` to see all data. ",
            stacklevel=4,
        )
    if resource is StateResource.OBJECTS and not tables.CALL_SITES:
        warnings.warn(_NO_CALL_SITES, stacklevel=4)
