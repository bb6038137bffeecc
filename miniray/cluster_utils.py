"""`Cluster`: several virtual nodes on one machine, for programs and tests whose subject is more than one node.

The nodes are real as far as a program can tell: each has its id, its resources, its own worker processes and its own
part of the object store, and all of that is gone when it is removed. One head process hosts them. It is a shared head
(drivers come and go, `init()` without an address finds it) that ends with the process that made the `Cluster`.

Follows Ray's ``ray.cluster_utils``.
"""

from __future__ import annotations

import atexit
import os
import time
from typing import Any

from miniray import api, init_options
from miniray.messages.control import AddNode, RemoveNode
from miniray.messages.startup import HeadConfig
from miniray.options import RESOURCE_UNITS
from miniray.processes import current
from miniray.processes.control_client import ControlClient
from miniray.system import session
from miniray.system.process_start import HeadProcess, start_head
from miniray.system.ray_settings import spilling_directory
from miniray.version import __version__

#: What a node gets when nothing is said, as in Ray.
_DEFAULT_CPUS = 1
_DEFAULT_STORE = 150 * 1024 * 1024
#: What Ray takes for the processes of a node; most of it has no meaning here.
_NODE_ARGUMENTS = frozenset(
    """
    redis_address gcs_address num_cpus num_gpus resources labels memory object_store_memory redis_port
    redis_shard_ports object_manager_port node_manager_port gcs_server_port node_ip_address node_name
    min_worker_port max_worker_port worker_port_list ray_client_server_port redirect_output log_to_stderr
    external_addresses num_redis_shards redis_max_clients redis_username redis_password plasma_directory
    object_spilling_directory worker_path setup_worker_path huge_pages include_dashboard dashboard_host
    dashboard_port dashboard_agent_listen_port runtime_env_agent_port plasma_store_socket_name
    raylet_socket_name temp_dir runtime_env_dir_name include_log_monitor autoscaling_config
    ray_debugger_external _system_config enable_object_reconstruction metrics_agent_port metrics_export_port
    tracing_startup_hook no_monitor env_vars session_name webui cluster_id node_id resource_isolation_config
    proxy_server_url port
    """.split()  # noqa: SIM905 - five lines and not fifty
)


class ClusterNode:
    """A node of a `Cluster`."""

    def __init__(self, row: dict[str, Any], address_info: dict[str, Any], head: bool) -> None:
        self.node_id: str = row["NodeID"]
        self.unique_id = self.node_id
        self.node_name: str = row["NodeName"]
        self.node_ip_address: str = row["NodeManagerAddress"]
        self.raylet_ip_address = self.node_ip_address
        self.node_manager_port: int = row["NodeManagerPort"]
        self.raylet_socket_name: str = row["RayletSocketName"]
        self.plasma_store_socket_name: str = row["ObjectStoreSocketName"]
        self.head = head
        self.address_info = {**address_info, "node_id": self.node_id}
        self.gcs_address: str = address_info["gcs_address"]
        self.address = self.gcs_address
        self.session_name: str = address_info["session_name"]
        self.webui_url: str = address_info["webui_url"]
        self.alive = True  #: until it is removed
        self._row = row
        self._cluster: Cluster | None = None

    def is_head(self) -> bool:
        """Whether the cluster ends with this node."""
        return self.head

    def get_resource_and_label_spec(self) -> dict[str, Any]:
        """The resources and labels it was added with."""
        return {"resources": self._row["Resources"], "labels": self._row["Labels"]}

    def get_session_dir_path(self) -> str:
        """The directory of the session."""
        return str(self.address_info["session_dir"])

    def get_logs_dir_path(self) -> str:
        """Where the log files are."""
        return str(self.address_info["log_dir"])

    def any_processes_alive(self) -> bool:
        """Whether the node lives."""
        return self.alive

    def remaining_processes_alive(self) -> bool:
        """Whether the node lives."""
        return self.alive

    def kill_raylet(self, check_alive: bool = True) -> None:
        """The node dies, with all that runs on it; the `Cluster` still counts it.

        Args:
            check_alive: has no effect.
        """
        if self._cluster is not None:
            self._cluster._kill(self, graceful=False)

    def __repr__(self) -> str:
        return f"ClusterNode(node_id={self.node_id!r}, head={self.head})"


class Cluster:
    """A head and its nodes.

    Args:
        initialize_head: add the head node at once.
        connect: and connect this process as a driver.
        head_node_args: arguments of `add_node` for the head.
        shutdown_at_exit: end it with this interpreter at the latest.

    Source: https://docs.ray.io/en/latest/ray-core/examples/testing-tips.html
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        if connect and not initialize_head:
            raise RuntimeError("Cannot connect to uninitialized cluster.")
        self.head_node: ClusterNode | None = None
        self.worker_nodes: set[ClusterNode] = set()
        self._added: list[ClusterNode] = []  #: in their order
        self.connected = False
        self._process: HeadProcess | None = None
        self._info: session.SessionInfo | None = None
        self._client: ControlClient | None = None
        self._pid = os.getpid()
        if shutdown_at_exit:
            atexit.register(self._at_exit)
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def address(self) -> str | None:
        """What `init(address=...)` takes; None while there is no head."""
        return self._info.gcs_address if self._info is not None else None

    @property
    def gcs_address(self) -> str | None:
        """The same."""
        return self.address

    def connect(self, namespace: str | None = None) -> None:
        """Connect this process to the cluster as a driver."""
        assert self.address is not None, "the cluster has no head"
        assert not self.connected, "this process is connected already"
        api.init(address=self.address, namespace=namespace, ignore_reinit_error=True)
        self.connected = True

    def add_node(self, wait: bool = True, **node_args: Any) -> ClusterNode:
        """One more node; the first one is the head.

        Args:
            wait: until it is part of the cluster, which it always is here.
            **node_args: num_cpus (1), num_gpus, resources, labels, memory, object_store_memory (150 MiB), node_name;
                of the head also _system_config and object_spilling_directory; what else Ray takes for its processes
                is accepted and has no meaning here.

        Returns:
            The node; `node_id` is its id in hex.

        Raises:
            TypeError: an argument that Ray does not know either.
        """
        for name in node_args:
            if name not in _NODE_ARGUMENTS:
                raise TypeError(f"RayParams.__init__() got an unexpected keyword argument '{name}'")
        resources = dict(node_args.get("resources") or {})
        init_options.check_custom_resources(resources)
        num_cpus = node_args.get("num_cpus")
        quantities = {
            **resources,
            "CPU": _DEFAULT_CPUS if num_cpus is None else num_cpus,
            "GPU": node_args.get("num_gpus") or 0,
        }
        store = node_args.get("object_store_memory") or _DEFAULT_STORE
        init_options.check_object_store_memory(store)
        units = init_options.check_node_resources(quantities)
        if self._process is None:
            self.head_node = self._start(node_args, quantities, resources, store)
            return self.head_node
        if node_args.get("memory"):
            units["memory"] = int(node_args["memory"]) * RESOURCE_UNITS
        row = self._ask().ask(
            lambda number: AddNode(
                number, units, node_args.get("labels") or {}, store, node_args.get("node_name") or ""
            )
        )
        node = ClusterNode(row, self._address_info(), head=False)
        node._cluster = self
        self._added.append(node)
        self.worker_nodes.add(node)
        return node

    def _start(
        self, node_args: dict[str, Any], quantities: dict[str, Any], resources: dict[str, Any], store: int
    ) -> ClusterNode:
        settings = node_args.get("_system_config") or {}
        spill_to = spilling_directory(settings, node_args.get("object_spilling_directory"))
        paths = session.create_session(private=False, spill_to=spill_to)
        config = HeadConfig(
            version=__version__,
            private=False,
            guarded=True,
            transport=os.environ.get("MINIRAY_TRANSPORT", "ipc"),
            start_method=os.environ.get("MINIRAY_START_METHOD", "fork"),
            num_cpus=float(quantities["CPU"]),
            num_gpus=float(quantities["GPU"]),
            memory=node_args.get("memory"),
            object_store_memory=store,
            resources={name: float(quantity) for name, quantity in resources.items()},
            labels=node_args.get("labels") or {},
            port=node_args.get("port") or 0,
            system_config=settings,
        )
        process = start_head(paths, config)
        try:
            process.wait_ready()
        except BaseException:
            process.kill()
            process.wait_exit(5.0)
            session.remove_session(paths.directory, paths.store)
            raise
        self._process = process
        self._info = session.read_registry(paths.directory)
        (row,) = self._ask().query("nodes")
        return ClusterNode(row, self._address_info(), head=True)

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node: its processes are killed, its objects lost. Without its head the whole cluster ends.

        Raises:
            ValueError: this process is connected to it as a driver (and is shut down first, as on Ray).
            KeyError: it is not (or no longer) a node of this cluster.
        """
        core = current.core_or_none()
        if core is not None and not core.closed and core.node_id.hex() == node.node_id:
            api.shutdown()
            raise ValueError(
                "Removing a node that is connected to this Ray client is not allowed because it will break the driver. "
                "You can use the get_other_node utility to avoid removing a node that the Ray client is connected."
            )
        if node is self.head_node:
            node.alive = False
            self._stop()
            return
        self._kill(node, graceful=allow_graceful)
        self.worker_nodes.remove(node)

    def _kill(self, node: ClusterNode, *, graceful: bool) -> None:
        if node.alive:
            node.alive = False
            self._ask().ask(lambda number: RemoveNode(number, bytes.fromhex(node.node_id), graceful))

    def list_all_nodes(self) -> list[ClusterNode]:
        """All nodes, the head first."""
        nodes = [node for node in self._added if node in self.worker_nodes]
        return [self.head_node, *nodes] if self.head_node is not None else nodes

    def remaining_processes_alive(self) -> bool:
        """Whether the cluster runs, and all nodes that were not removed."""
        if self._info is not None and not session.is_alive(self._info.directory):
            return False
        return all(node.alive for node in self.list_all_nodes())

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Wait until all nodes are part of the cluster.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        wanted = len(self.list_all_nodes())
        deadline = time.monotonic() + timeout
        while sum(row["Alive"] for row in self._ask().query("nodes")) != wanted:
            if time.monotonic() > deadline:
                raise TimeoutError("Timed out while waiting for nodes to join.")
            time.sleep(0.01)

    def shutdown(self) -> None:
        """End the cluster. Shut down the driver first."""
        self._stop()

    def _stop(self) -> None:
        process, client = self._process, self._client
        self._process = self._client = self.head_node = None
        self.worker_nodes.clear()
        self._added.clear()
        self.connected = False
        if client is not None:
            client.close()
        if process is None:
            return
        process.lifeline.close()
        if not process.wait_exit(5.0):
            process.kill()
            process.wait_exit(5.0)
        if self._info is not None:
            session.remove_session(self._info.directory, self._info.store)
            self._info = None

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            api.shutdown()
            self._stop()

    def _running(self) -> session.SessionInfo:
        if self._info is None:
            raise RuntimeError("Cannot connect to uninitialized cluster.")
        return self._info

    def _ask(self) -> ControlClient:
        if self._client is None:
            self._client = ControlClient(self._running())
        return self._client

    def _address_info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._ask().query("session")
        return info
