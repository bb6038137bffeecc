"""`get_runtime_context()`: who and where the caller is: job, node, worker, task, actor, and what they were given.

The one `RuntimeContext` of a process holds nothing itself: each question is answered from the current core worker and
the task that runs in this context, so it is right in threads, in coroutines, and over several sessions.

Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.runtime_context.RuntimeContext.html
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from miniray.deprecation import warn_deprecated
from miniray.ids import ActorID, JobID, NodeID, PlacementGroupID, TaskID
from miniray.options import RESOURCE_UNITS
from miniray.processes import current
from miniray.processes.auto_init import require_core
from miniray.processes.other_engine import handed_over
from miniray.system import user_log

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker
    from miniray.runtime_env import RuntimeEnv

#: What may have devices with ids, as Ray knows them.
ACCELERATORS = ("GPU", "neuron_cores", "TPU", "HPU", "NPU", "RBLN", "FURIOSA", "MBLT", "TTNPU")

_ONE_CPU = {"CPU": RESOURCE_UNITS}
_WORKERS_ONLY = "This method is only available when the process is a worker. Current mode: 0"
#: Ray's own spacing: programs compare the text.
_WORKERS_ONLY_ASSERTION = f"This method is only available when the process is a{' ' * 17}worker. Current mode: 0"


class RuntimeContext:
    """Answers about the caller. `get_runtime_context` returns the one of this process."""

    @property
    def worker(self) -> Any:
        """Ray's worker object, as far as programs use it: `mode`, `core_worker`, `current_job_id`, ..."""
        import importlib  # by its name: it is a view that stands on top of all this

        return importlib.import_module("miniray._private.global_worker").global_worker

    # -- ids -------------------------------------------------------------------------------------------------------

    def get_job_id(self) -> str:
        """The id of the job: 8 hexadecimal digits.

        Raises:
            RuntimeError: there is no session.
        """
        return _core("Job ID").job_id.hex()

    def get_node_id(self) -> str:
        """The id of the node on which the caller runs: 56 hexadecimal digits."""
        return _core("Node ID").node_id.hex()

    def get_worker_id(self) -> str:
        """The id of this process: 56 hexadecimal digits."""
        return _core("Worker ID").worker_id.hex()

    def get_task_id(self) -> str | None:
        """The id of the running task: 48 hexadecimal digits; None in a driver."""
        if _in_driver("Task ID"):
            return None
        return _task().task_id.hex()

    def get_actor_id(self) -> str | None:
        """The id of the actor whose method runs: 32 hexadecimal digits; None outside of actors."""
        if _core("Actor ID").mode == "driver":
            return None
        actor_id = _task().actor_id
        return actor_id.hex() if actor_id else None

    def get_placement_group_id(self) -> str | None:
        """The id of the placement group that the caller runs in; None outside of one."""
        core = _core("Placement group ID")
        group = (current.task_context.get() or core.main_context).placement_group_id
        return group.hex() if group else None

    # -- names -----------------------------------------------------------------------------------------------------

    def get_task_name(self) -> str | None:
        """The name of the running task: the function's, `Actor.method`, or its option `name`; None in a driver."""
        if _in_driver("Task name"):
            return None
        return _task().name

    def get_task_function_name(self) -> str | None:
        """Module and name of the running function; None in a driver. A script's module is the name of its file."""
        if _in_driver("Task function name"):
            return None
        return _task().function_name

    def get_actor_name(self) -> str | None:
        """The name of the actor whose method runs, "" if it has none; None outside of actors."""
        if _in_driver("Actor name"):
            return None
        if not _task().actor_id:
            return None
        actor = _core("Actor name").actor
        return actor.name if actor is not None else ""

    @property
    def namespace(self) -> str:
        """The namespace of the job."""
        return _core("Namespace").namespace

    def get_session_name(self) -> str:
        """The name of the session."""
        return str(_session("session_name"))

    def get_temp_dir(self) -> str:
        """The directory under which the sessions of this user lie."""
        return str(_session("temp_dir"))

    @property
    def gcs_address(self) -> str:
        """The address that ``init(address=...)`` takes to join this session."""
        return str(_session("gcs_address"))

    # -- what the caller was given ------------------------------------------------------------------------------------

    def get_assigned_resources(self) -> dict[str, float]:
        """The resources of the running task or actor, by name; what was not asked for is absent.

        Raises:
            AssertionError: in a driver.
        """
        assert _core("Resources").mode != "driver", _WORKERS_ONLY_ASSERTION
        task = _task()
        units = task.resources
        if units is None:
            units = {} if task.actor_id else _ONE_CPU
        return {name: quantity / RESOURCE_UNITS for name, quantity in units.items()}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The ids of the devices that the caller may use, for each kind of accelerator."""
        core = _core("Accelerators")
        ids = (current.task_context.get() or core.main_context).accelerator_ids
        return {name: list(ids.get(name, ())) for name in ACCELERATORS}

    def get_node_labels(self) -> dict[str, str]:
        """The labels of the node on which the caller runs."""
        node_id = self.get_node_id()
        rows = _query("nodes")
        return next((dict(row["Labels"]) for row in rows if row["NodeID"] == node_id), {})

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment of the running task or actor, with what it inherits; in a driver, of the job."""
        from miniray.runtime_env import RuntimeEnv  # few programs ask

        return RuntimeEnv.deserialize(self.get_runtime_env_string())

    def get_runtime_env_string(self) -> str:
        """The runtime environment as JSON."""
        return _core("Runtime env").runtime_env or "{}"

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether tasks that the caller submits run in its placement group."""
        core = _core("Placement group")
        return (current.task_context.get() or core.main_context).captures_children

    # -- the present run ---------------------------------------------------------------------------------------------

    def is_canceled(self) -> bool:
        """Whether the running task was cancelled. A long loop may ask now and then, and stop.

        Raises:
            RuntimeError: in a driver, or in an async actor, whose calls get `asyncio.CancelledError` instead.
        """
        core = _core("Task")
        if core.mode == "driver":
            raise RuntimeError(_WORKERS_ONLY)
        if core.actor is not None and core.actor.is_async:
            raise RuntimeError("This method is not supported in an async actor.")
        return bool(_task().cancelled)

    @property
    def current_actor(self) -> Any:
        """A handle of the actor whose method runs.

        Raises:
            RuntimeError: outside of actors.
        """
        _core("Actor")
        if self.get_actor_id() is None:
            raise RuntimeError("This method is only available in an actor.")
        # By its name: the module comes with actors, and only then is there one to be current.
        import importlib

        return importlib.import_module("miniray.actor").current_actor_handle()

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was restarted.

        Raises:
            AssertionError: in a driver.
            AttributeError: in a plain task.
        """
        assert _core("Actor").mode != "driver", _WORKERS_ONLY_ASSERTION
        task = _task()
        if not task.actor_id:
            raise AttributeError("was_current_actor_reconstructed: this is a task, and not an actor.")
        return bool(_core("Actor").actor.restarted)

    # -- what Ray keeps for old programs -------------------------------------------------------------------------------

    @property
    def job_id(self) -> JobID:
        """Deprecated: the id as an object."""
        warn_deprecated("Use get_job_id() instead")
        return JobID(bytes.fromhex(self.get_job_id()))

    @property
    def node_id(self) -> NodeID:
        """Deprecated: the id as an object."""
        warn_deprecated("Use get_node_id() instead")
        return NodeID(_core("Node ID").node_id)

    @property
    def task_id(self) -> TaskID:
        """Deprecated: the id as an object. AssertionError in a driver."""
        warn_deprecated("Use get_task_id() instead")
        assert _core("Task ID").mode != "driver", _WORKERS_ONLY_ASSERTION
        return TaskID(_task().task_id)

    @property
    def actor_id(self) -> ActorID | None:
        """Deprecated: the id as an object. AssertionError in a driver."""
        warn_deprecated("Use get_actor_id() instead")
        assert _core("Actor ID").mode != "driver", _WORKERS_ONLY_ASSERTION
        actor_id = _task().actor_id
        return ActorID(actor_id) if actor_id else None

    @property
    def current_placement_group_id(self) -> PlacementGroupID:
        """Deprecated: the id as an object, nil outside of a placement group."""
        warn_deprecated("Use get_placement_group_id() instead")
        group = self.get_placement_group_id()
        return PlacementGroupID(bytes.fromhex(group)) if group else PlacementGroupID.nil()

    def get(self) -> dict[str, Any]:
        """Deprecated: the ids that there are, by name, and the namespace."""
        warn_deprecated("Use get_xxx_id() methods to get relevant ids instead")
        core = _core("Runtime context")
        context: dict[str, Any] = {
            "job_id": JobID(bytes.fromhex(self.get_job_id())),
            "node_id": NodeID(core.node_id),
            "namespace": self.namespace,
        }
        if core.mode != "driver":
            task = _task()
            context["task_id"] = TaskID(task.task_id)
            if task.actor_id:
                context["actor_id"] = ActorID(task.actor_id)
        return context

    def get_resource_ids(self) -> dict[str, list[str]]:
        """Deprecated: another name of `get_accelerator_ids`."""
        warn_deprecated("Use get_accelerator_ids() instead")
        return self.get_accelerator_ids()


def _core(what: str) -> CoreWorker:
    core = current.core_or_none()
    if core is None or core.closed:
        raise RuntimeError(f"{what} is not available because Ray has not been initialized.")
    return core


def _in_driver(what: str) -> bool:
    """Whether the caller is a driver, where there is no such thing; Ray says so, and answers None."""
    if _core(what).mode != "driver":
        return False
    user_log.say(user_log.WARNING, _WORKERS_ONLY, caller=2)
    return True


def _task() -> current.TaskContext:
    """What runs here; in a thread that the user started, a nameless task."""
    task: current.TaskContext = current.task_context.get() or _core("Task").main_context
    return task


def _query(what: str) -> Any:
    from miniray.messages.control import Query

    return _core("The session").head_client.request(lambda number: Query(number, what))


def _session(name: str) -> Any:
    """A fact about the session, which a worker asks the head for once."""
    core = _core("The session")
    if name not in core.session:
        core.session.update(_query("session"))
    return core.session[name]


_runtime_context = RuntimeContext()


@handed_over
def get_runtime_context() -> RuntimeContext:
    """The runtime context of this process; starts a session when there is none.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.runtime_context.get_runtime_context.html
    """
    if current.core_or_none() is None and os.environ.get("RAY_ENABLE_AUTO_CONNECT", "") != "0":
        require_core()
    return _runtime_context
