"""What runs in a session, and how it fares: lists, single rows and summaries.

Each function asks the head once, and is answered within milliseconds; what it says is how things were at that moment.

Source: https://docs.ray.io/en/latest/ray-observability/reference/api.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniray.processes.other_engine import handed_over
from miniray.util.state.client import StateApiClient
from miniray.util.state.logs import get_log, list_logs
from miniray.util.state.options import (
    DEFAULT_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    Filter,
    GetApiOptions,
    GetLogOptions,
    ListApiOptions,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
)
from miniray.util.state.schemas import (
    ActorState,
    ClusterEventState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    TaskState,
    WorkerState,
)

if TYPE_CHECKING:
    from miniray.refs import ObjectRef


def _get(resource: StateResource, id: str, address: str | None, timeout: int, explain: bool) -> Any:
    return StateApiClient(address).get(resource, id, GetApiOptions(timeout=timeout), _explain=explain)


@handed_over
def get_actor(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> ActorState | None:
    """An actor, with all details; None if there is none with this id.

    Args:
        id: of the actor, in hex.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.ACTORS, id, address, timeout, _explain)  # type: ignore[no-any-return]


@handed_over
def get_job(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> JobState | None:
    """A job that was submitted, with all details; None if there is none with this id.

    Args:
        id: under which it was submitted, in hex.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.JOBS, id, address, timeout, _explain)  # type: ignore[no-any-return]


@handed_over
def get_placement_group(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> PlacementGroupState | None:
    """A placement group, with all details; None if there is none with this id.

    Args:
        id: of the group, in hex.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.PLACEMENT_GROUPS, id, address, timeout, _explain)  # type: ignore[no-any-return]


@handed_over
def get_node(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> NodeState | None:
    """A virtual node, with all details; None if there is none with this id.

    Args:
        id: of the node, in hex.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.NODES, id, address, timeout, _explain)  # type: ignore[no-any-return]


@handed_over
def get_worker(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> WorkerState | None:
    """A worker or driver, with all details; None if there is none with this id.

    Args:
        id: of the process, in hex.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.WORKERS, id, address, timeout, _explain)  # type: ignore[no-any-return]


@handed_over
def get_task(
    id: str | ObjectRef[Any], address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> TaskState | list[TaskState] | None:
    """A task, with all details; None if there is none with this id. A list if it was tried several times.

    Args:
        id: of the task, in hex, or a ref to what it returns.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.TASKS, id if isinstance(id, str) else id.task_id().hex(), address, timeout, _explain)  # type: ignore[no-any-return]


@handed_over
def get_objects(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> list[ObjectState] | None:
    """An object as each process that holds it sees it, with all details; None if there is none with this id.

    Args:
        id: of the object, in hex.
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.

    Raises:
        RayStateApiException: this is no id, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _get(StateResource.OBJECTS, id, address, timeout, _explain)  # type: ignore[no-any-return]


def _list(
    resource: StateResource,
    address: str | None,
    filters: list[Filter] | None,
    limit: int,
    timeout: int,
    detail: bool,
    raise_on_missing_output: bool,
    explain: bool,
) -> Any:
    options = ListApiOptions(limit=limit, timeout=timeout, filters=filters, detail=detail)
    return StateApiClient(address).list(resource, options, raise_on_missing_output, _explain=explain)


@handed_over
def list_actors(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]:
    """Actors, the dead that are remembered among them.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `ActorState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.ACTORS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_placement_groups(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """Placement groups.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `PlacementGroupState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.PLACEMENT_GROUPS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_nodes(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[NodeState]:
    """Virtual nodes, removed ones among them.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `NodeState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.NODES, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_jobs(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[JobState]:
    """Jobs.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `JobState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.JOBS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_workers(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[WorkerState]:
    """Workers and drivers, those that have ended among them.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `WorkerState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.WORKERS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_tasks(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[TaskState]:
    """Tasks and calls of actors, one row for each attempt: all that have not ended, and the newest of those that
    have.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `TaskState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.TASKS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_objects(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ObjectState]:
    """Objects, one row for each process that holds a ref.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `ObjectState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.OBJECTS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_runtime_envs(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[RuntimeEnvState]:
    """Runtime environments that workers have.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `RuntimeEnvState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.RUNTIME_ENVS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


@handed_over
def list_cluster_events(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ClusterEventState]:
    """What happened to the session as a whole. Nothing is recorded here: the list is empty.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        filters: (column, "=" or "!=", value), all of which a row must meet; case does not matter.
        limit: rows, at most.
        timeout: seconds.
        detail: fill all columns of `ClusterEventState`.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Raises:
        RayStateApiException: a filter or the limit cannot be, output is missing, or the head does not answer.
        ValueError: a filter is no such triple.
        ConnectionError: there is no session.
    """
    return _list(  # type: ignore[no-any-return]
        StateResource.CLUSTER_EVENTS, address, filters, limit, timeout, detail, raise_on_missing_output, _explain
    )


def _summarize(
    resource: SummaryResource, address: str | None, timeout: int, raise_on_missing_output: bool, explain: bool
) -> dict[str, Any]:
    options = SummaryApiOptions(timeout=timeout)
    return StateApiClient(address).summary(
        resource, options=options, raise_on_missing_output=raise_on_missing_output, _explain=explain
    )


@handed_over
def summarize_tasks(
    address: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many tasks there are, by name and state.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Returns:
        ``{"cluster": {"summary": ..., totals}}``.

    Raises:
        RayStateApiException: output is missing, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _summarize(SummaryResource.TASKS, address, timeout, raise_on_missing_output, _explain)


@handed_over
def summarize_actors(
    address: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many actors there are, by class and state.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Returns:
        ``{"cluster": {"summary": ..., totals}}``.

    Raises:
        RayStateApiException: output is missing, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _summarize(SummaryResource.ACTORS, address, timeout, raise_on_missing_output, _explain)


@handed_over
def summarize_objects(
    address: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many objects are held, by call site and by why they are held.

    Args:
        address: which session; None: this process's, else that of ``RAY_ADDRESS``, else the newest one.
        timeout: seconds.
        raise_on_missing_output: raise when there are more rows than are looked at (10,000).

    Returns:
        ``{"cluster": {"summary": ..., totals}}``.

    Raises:
        RayStateApiException: output is missing, or the head does not answer.
        ConnectionError: there is no session.
    """
    return _summarize(SummaryResource.OBJECTS, address, timeout, raise_on_missing_output, _explain)


__all__ = [
    "GetApiOptions",
    "GetLogOptions",
    "ListApiOptions",
    "StateApiClient",
    "StateResource",
    "SummaryApiOptions",
    "SummaryResource",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_cluster_events",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_runtime_envs",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]
