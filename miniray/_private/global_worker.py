"""`global_worker`: what programs ask Ray's worker object for, answered by the session that this process is in."""

from __future__ import annotations

import os
from typing import Any

import miniray
from miniray.exceptions import RaySystemError
from miniray.ids import ActorID, ClusterID, JobID, NodeID, PlacementGroupID, TaskID, WorkerID
from miniray.processes import current
from miniray.system import serialization

SCRIPT_MODE = 0
WORKER_MODE = 1

_NO_CORE = "'Worker' object has no attribute 'core_worker'"


class NodeView:
    """The node that this process belongs to, and its session."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.head = True
        self.all_processes: dict[str, list[Any]] = {}
        self.logging_config = {"log_rotation_max_bytes": 0, "log_rotation_backup_count": 0}

    def _fact(self, name: str) -> Any:
        session = self._core.session
        if name not in session:
            from miniray.messages.control import Query

            session.update(self._core.head_client.request(lambda number: Query(number, "session")))
        return session[name]

    @property
    def address_info(self) -> dict[str, Any]:
        """Addresses and folders, by name."""
        from miniray.init_context import context_of_worker

        return context_of_worker().address_info

    @property
    def address(self) -> str:
        """What `init(address=...)` takes."""
        return str(self._fact("gcs_address"))

    gcs_address = address

    @property
    def node_id(self) -> str:
        """The id in hex."""
        return str(self._core.node_id.hex())

    @property
    def unique_id(self) -> str:
        """A name of the node."""
        return f"{self.node_ip_address}:{self.plasma_store_socket_name}"

    @property
    def cluster_id(self) -> ClusterID:
        """The id of the session."""
        return _cluster_id(self.session_name)

    @property
    def node_ip_address(self) -> str:
        """Its IP address."""
        return str(self._core.node_ip)

    @property
    def session_name(self) -> str:
        """The name of the session."""
        return str(self._fact("session_name"))

    @property
    def raylet_socket_name(self) -> str:
        """The socket of the head."""
        return str(self._fact("raylet_socket_name"))

    @property
    def plasma_store_socket_name(self) -> str:
        """The folder of the shared memory."""
        return str(self._fact("object_store_address"))

    @property
    def webui_url(self) -> str:
        """Where the dashboard is, "" without one."""
        return str(self._fact("webui_url"))

    @property
    def node_labels(self) -> dict[str, str]:
        """Its labels."""
        return miniray.get_runtime_context().get_node_labels()

    redis_address = None
    redis_password = ""
    metrics_export_port = 0
    dashboard_agent_listen_port = -1

    def is_head(self) -> bool:
        """Whether the session ends with it."""
        return self.head

    def get_session_dir_path(self) -> str:
        """The folder of the session."""
        return str(self._fact("session_dir"))

    def get_logs_dir_path(self) -> str:
        """The folder of its logs."""
        return str(self._fact("log_dir"))

    def get_sockets_dir_path(self) -> str:
        """The folder of its sockets."""
        return os.path.dirname(self.raylet_socket_name)

    def get_temp_dir_path(self) -> str:
        """The folder above the session's."""
        return str(self._fact("temp_dir"))

    def get_runtime_env_dir_path(self) -> str:
        """The folder of runtime environments."""
        return os.path.join(self.get_session_dir_path(), "runtime_resources")

    def live_processes(self) -> list[Any]:
        """Processes of the node besides the workers: the head has none that could be named."""
        return []

    def dead_processes(self) -> list[Any]:
        """Those of them that have died."""
        return []

    def remaining_processes_alive(self) -> bool:
        """Whether the session lives."""
        return not self._core.closed and not self._core.head_lost


class CoreWorkerView:
    """What programs ask Ray's compiled core worker for."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def get_worker_id(self) -> WorkerID:
        """The id of this process."""
        return WorkerID(self._core.worker_id)

    def get_current_job_id(self) -> JobID:
        """The id of the job."""
        return JobID(self._core.job_id)

    def get_current_node_id(self) -> NodeID:
        """The id of the node."""
        return NodeID(self._core.node_id)

    def get_current_task_id(self) -> TaskID:
        """The id of the running task; in a driver, the driver's own."""
        return TaskID(self._task().task_id)

    def get_current_task_name(self) -> str:
        """The name of the running task, "" in a driver."""
        return str(self._task().name)

    def get_current_task_function_name(self) -> str:
        """The function that runs, "" in a driver."""
        return "" if self._core.mode == "driver" else str(self._task().function_name)

    def get_current_task_attempt_number(self) -> int:
        """How often the running task was tried before."""
        return int(self._task().attempt)

    def get_actor_id(self) -> ActorID:
        """The id of the actor whose method runs, nil outside of actors."""
        actor_id = self._task().actor_id
        return ActorID(actor_id) if actor_id else ActorID.nil()

    def get_actor_name(self) -> bytes:
        """The name of the actor whose method runs."""
        return (miniray.get_runtime_context().get_actor_name() or "").encode()

    def get_placement_group_id(self) -> PlacementGroupID:
        """The placement group that the caller runs in, nil outside of one."""
        group = self._task().placement_group_id
        return PlacementGroupID(group) if group else PlacementGroupID.nil()

    def get_task_depth(self) -> int:
        """How many tasks lie between the driver and this one."""
        return int(self._task().depth)

    def get_current_runtime_env(self) -> str:
        """The runtime environment as JSON."""
        return miniray.get_runtime_context().get_runtime_env_string()

    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether tasks that the caller submits run in its placement group."""
        return miniray.get_runtime_context().should_capture_child_tasks_in_placement_group

    def current_actor_is_asyncio(self) -> bool:
        """Whether the actor that lives here is async."""
        return self._core.actor is not None and bool(self._core.actor.is_async)

    def is_canceled(self) -> bool:
        """Whether the running task was cancelled."""
        return bool(self._task().cancelled)

    def resource_ids(self) -> dict[str, list[tuple[int, float]]]:
        """The devices of the running task."""
        ids = self._task().accelerator_ids
        return {name: [(int(number), 1.0) for number in given] for name, given in ids.items()}

    def get_all_reference_counts(self) -> dict[bytes, dict[str, int]]:
        """For each object that this process holds, how many refs are in scope and how many pending tasks need it."""
        with self._core.lock:
            self._core.settle()
            return {
                entry.object_id.hex().encode(): {"local": entry.local, "submitted": entry.submitted}
                for entry in self._core.objects.entries.values()
                if entry.local or entry.submitted
            }

    def object_exists(self, object_ref: Any, memory_store_only: bool = False) -> bool:
        """Whether the value is here."""
        with self._core.lock:
            entry = self._core.objects.entries.get(object_ref.binary())
            return entry is not None and entry.payload is not None

    def global_gc(self) -> None:
        """Collect garbage."""
        import gc

        gc.collect()

    def _task(self) -> Any:
        return current.task_context.get() or self._core.main_context


class Worker:
    """The view of this process under Ray's name. There is one, `global_worker`, over all sessions."""

    SCRIPT_MODE = SCRIPT_MODE
    WORKER_MODE = WORKER_MODE

    def __init__(self) -> None:
        self.actors: dict[ActorID, Any] = {}
        self.ray_debugger_external = False
        self._node: NodeView | None = None

    @property
    def _core(self) -> Any:
        core = current.core_or_none()
        if core is None or core.closed:
            raise AttributeError(_NO_CORE)
        return core

    @property
    def connected(self) -> bool:
        """Whether this process is in a session."""
        return miniray.is_initialized()

    def check_connected(self) -> None:
        """Raise RaySystemError unless this process is in a session."""
        if not self.connected:
            raise RaySystemError("Ray has not been started yet. You can start Ray with 'ray.init()'.")

    @property
    def mode(self) -> int | None:
        """`SCRIPT_MODE` in a driver, `WORKER_MODE` in a worker, None without a session."""
        if not self.connected:
            return None
        return SCRIPT_MODE if self._core.mode == "driver" else WORKER_MODE

    @property
    def core_worker(self) -> CoreWorkerView:
        """What Ray's compiled part answers. AttributeError without a session."""
        return CoreWorkerView(self._core)

    @property
    def node(self) -> NodeView | None:
        """The node, None without a session."""
        if not self.connected:
            return None
        core = self._core
        if self._node is None or self._node._core is not core:
            self._node = NodeView(core)
        return self._node

    @property
    def worker_id(self) -> bytes:
        """The id of this process."""
        return bytes(self._core.worker_id)

    @property
    def actor_id(self) -> ActorID:
        """The id of the actor whose method runs, nil outside of actors."""
        return self.core_worker.get_actor_id()

    @property
    def actor_name(self) -> str | None:
        """The name of the actor whose method runs."""
        return miniray.get_runtime_context().get_actor_name()

    @property
    def current_job_id(self) -> JobID:
        """The id of the job, nil without a session."""
        return self.core_worker.get_current_job_id() if self.connected else JobID.nil()

    @property
    def current_node_id(self) -> NodeID:
        """The id of the node."""
        return self.core_worker.get_current_node_id()

    @property
    def current_task_id(self) -> TaskID:
        """The id of the running task."""
        return self.core_worker.get_current_task_id()

    @property
    def current_task_name(self) -> str:
        """The name of the running task."""
        return self.core_worker.get_current_task_name()

    @property
    def current_task_function_name(self) -> str:
        """The function that runs."""
        return self.core_worker.get_current_task_function_name()

    @property
    def current_node_labels(self) -> dict[str, str]:
        """The labels of the node."""
        return miniray.get_runtime_context().get_node_labels()

    @property
    def current_cluster_and_job(self) -> tuple[ClusterID, JobID]:
        """The ids of session and job."""
        return _cluster_id(str(self._core.session["session_name"])), self.current_job_id

    current_session_and_job = current_cluster_and_job

    @property
    def placement_group_id(self) -> PlacementGroupID:
        """The placement group that the caller runs in."""
        return self.core_worker.get_placement_group_id()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether tasks that the caller submits run in its placement group."""
        return miniray.get_runtime_context().should_capture_child_tasks_in_placement_group

    @property
    def task_depth(self) -> int:
        """How many tasks lie between the driver and this one."""
        return self.core_worker.get_task_depth()

    @property
    def namespace(self) -> str:
        """The namespace of the job."""
        return str(self._core.namespace)

    @property
    def runtime_env(self) -> str:
        """The runtime environment as JSON."""
        return self.core_worker.get_current_runtime_env()

    @property
    def node_ip_address(self) -> str:
        """The IP address of the node."""
        return str(self._core.node_ip)

    @property
    def load_code_from_local(self) -> bool:
        """Whether workers import functions instead of getting them from the driver."""
        return False

    def get_serialization_context(self) -> SerializationContext:
        """What makes bytes of values."""
        return SerializationContext()

    def put_object(self, value: Any, **kwargs: Any) -> Any:
        """`put`."""
        return miniray.put(value)

    def get_objects(
        self, object_refs: list[Any], timeout: float | None = None, **kwargs: Any
    ) -> tuple[list[Any], bytes]:
        """`get`; with it what a debugger would want, which there is none of."""
        return miniray.get(object_refs, timeout=timeout), b""


class SerializationContext:
    """What makes bytes of values."""

    def serialize(self, value: Any) -> Any:
        """The value, serialized: `to_bytes()` gives the bytes."""
        return serialization.serialize(value)


def _cluster_id(session_name: str) -> ClusterID:
    import hashlib  # only who asks for the id of a session

    return ClusterID(hashlib.sha256(session_name.encode()).digest()[:28])


global_worker = Worker()
