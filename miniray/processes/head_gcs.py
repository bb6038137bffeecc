"""The head's tables at work: jobs, nodes, workers, key-values and their subscribers.

Rows that the head itself writes are msgpack of plain data, and go through `put` like everybody's: published at once,
and handed to the durable path (`head_durable`) where there is one.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from miniray.ids import JobID
from miniray.messages import control
from miniray.processes.head_durable import Durable
from miniray.processes.head_health import ConsumerHealth
from miniray.processes.head_members import Member
from miniray.processes.head_queries import QUERIES
from miniray.processes.head_reports import REPORTED
from miniray.state_machines.publisher import Publisher
from miniray.state_machines.resources import to_units
from miniray.state_machines.table_prefix import TablePrefix, TablePubsub
from miniray.state_machines.table_store import Effect, Persist, Publish, TableStore
from miniray.system import machine
from miniray.system.ray_settings import KEPT_DEAD_NODES, KEPT_JOBS, setting

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

NODE_IP = "127.0.0.1"
_encode = msgspec.msgpack.encode

# What Ray calls the causes of a node's death.
_DEATH_UNSPECIFIED, _DEATH_EXPECTED, _DEATH_UNEXPECTED = 0, 1, 2


class Node:
    """A virtual node and its part of the object store."""

    def __init__(self, node_id: bytes, row: dict[str, Any], store_limit: int) -> None:
        self.node_id = node_id
        self.row = row
        self.store_limit = store_limit
        self.start_time = time.time()
        self.end_time = 0.0
        self.store_used = 0


class Gcs:
    """Tables, subscriptions, nodes, jobs."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self.tables = TableStore()
        self.publisher = Publisher()
        self.durable = Durable(head)
        self.health = ConsumerHealth(head)
        self.nodes: dict[bytes, Node] = {}
        self.jobs: dict[bytes, dict[str, Any]] = {}
        self._drivers: dict[bytes, bytes] = {}  #: driver -> job
        self._ready: set[bytes] = set()
        self._next_job = 1
        system_config = head.config.system_config
        self._kept_jobs = setting(system_config, *KEPT_JOBS)
        self._kept_nodes = setting(system_config, *KEPT_DEAD_NODES)
        self._finished: deque[bytes] = deque()  #: jobs, the oldest first
        self._dead_nodes: deque[bytes] = deque()

    # -- tables ----------------------------------------------------------------------------------------------------

    def put(
        self, table: TablePrefix, key: bytes, value: bytes, *, namespace: bytes = b"", publish: bool = True
    ) -> None:
        """The way that all of the head's own writes go."""
        self._carry_out(self.tables.put(table, key, value, namespace=namespace, publish=publish)[1])

    def delete(self, table: TablePrefix, key: bytes) -> None:
        """The way that the head's own rows go."""
        self._carry_out(self.tables.delete(table, key)[1])

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.durable.note(effect)
            elif isinstance(effect, Publish):
                self._ready.update(self.publisher.publish(effect.channel, effect.key, effect.value, self._head.now))
            else:
                sender, request_id = effect.token
                self._head.reply(sender, request_id, effect.value)

    def publish(self, channel: TablePubsub, key: bytes, value: bytes) -> None:
        """An event that is in no table."""
        self._ready.update(self.publisher.publish(channel, key, value, self._head.now))

    def flush(self) -> None:
        """Send what subscribers have not got, and what waited for the durable path."""
        self.durable.turn()
        if self.publisher.events:
            events, self.publisher.events = self.publisher.events, []
            self.health.note(events)
            self.publisher.events.clear()  # of those who do not keep up with these very events
        for subscriber in self._ready:
            while batch := self.publisher.take(subscriber, now=self._head.now):
                for event in batch:
                    self._head.post(subscriber, event)
        self._ready.clear()

    def on_put(self, sender: bytes, message: control.TablePut) -> None:
        """Write a row."""
        is_new, effects = self.tables.put(
            TablePrefix(message.table),
            message.key,
            message.value,
            namespace=message.namespace,
            overwrite=message.overwrite,
            publish=message.publish,
        )
        self._carry_out_request(effects, sender, message.request_id, is_new)
        self.durable.reply(sender, message.request_id, is_new, sync=message.sync)

    def _carry_out_request(self, effects: list[Effect], sender: bytes, request_id: int, answer: Any) -> None:
        """Like `_carry_out`; the answer goes into the journal with the last row."""
        if effects and request_id > 0:
            last = max(number for number, effect in enumerate(effects) if isinstance(effect, Persist))
            persist = effects.pop(last)
            self._carry_out(effects[:last])
            assert isinstance(persist, Persist)
            self.durable.note(persist, sender, request_id, answer)
            effects = effects[last:]
        self._carry_out(effects)

    def on_get(self, sender: bytes, message: control.TableGet) -> None:
        """Read a row, or wait for it."""
        table = TablePrefix(message.table)
        if message.wait:
            token = (sender, message.request_id)
            value = self.tables.wait(table, message.key, token, namespace=message.namespace)
            if value is None:
                return
        else:
            value = self.tables.get(table, message.key, namespace=message.namespace)
        self._head.reply(sender, message.request_id, value)

    def on_delete(self, sender: bytes, message: control.TableDelete) -> None:
        """Delete a row or several."""
        number, effects = self.tables.delete(
            TablePrefix(message.table), message.key, namespace=message.namespace, by_prefix=message.by_prefix
        )
        self._carry_out_request(effects, sender, message.request_id, number)
        self.durable.reply(sender, message.request_id, number)

    def on_scan(self, sender: bytes, message: control.TableScan) -> None:
        """List rows."""
        rows = self.tables.scan(
            TablePrefix(message.table), message.prefix, namespace=message.namespace, limit=message.limit
        )
        value = [key for key, _ in rows] if message.keys_only else [[key, value] for key, value in rows]
        self._head.reply(sender, message.request_id, value)

    def on_subscribe(self, sender: bytes, message: control.Subscribe) -> None:
        """Somebody wants to hear of a channel."""
        self.publisher.subscribe(sender, message.channel, message.key, acknowledges=message.acknowledges)
        self.health.subscribed(message.channel)

    def on_unsubscribe(self, sender: bytes, message: control.Unsubscribe) -> None:
        """No longer."""
        self.publisher.unsubscribe(sender, message.channel, message.key)

    def on_published_handled(self, sender: bytes, message: control.PublishedHandled) -> None:
        """A subscriber is ready for more."""
        if self.publisher.acknowledge(sender):
            self._ready.add(sender)

    # -- what an earlier head has written --------------------------------------------------------------------------

    def restore(self, *, same_session: bool) -> None:
        """Nodes and jobs, from the tables. `same_session`: they go on; else they are over."""
        for job_id, value in self.tables.scan(TablePrefix.JOB):
            job = self.jobs[job_id] = msgspec.msgpack.decode(value)
            self._next_job = max(self._next_job, JobID(job_id).int() + 1)
            if job["is_dead"]:
                continue
            if same_session:
                self._drivers[job["driver"][0]] = job_id
            else:
                job["is_dead"], job["end_time"] = True, time.time()
                self._put_job(job_id)
        over = [job_id for job_id, job in self.jobs.items() if job["is_dead"]]
        self._finished.extend(sorted(over, key=lambda job_id: self.jobs[job_id]["end_time"]))
        for key, value in self.tables.scan(TablePrefix.NODE):
            row = msgspec.msgpack.decode(value)
            if same_session:
                self._restore_node(key, row)
            else:
                self.delete(TablePrefix.NODE, key)
        if not same_session:
            for key, _ in self.tables.scan(TablePrefix.WORKERS):
                self.delete(TablePrefix.WORKERS, key)

    def _restore_node(self, node_id: bytes, row: dict[str, Any]) -> None:
        startup, resources = self._head.startup, row["Resources"]
        row["NodeManagerPort"] = row["ObjectManagerPort"] = startup.port
        row["RayletSocketName"] = os.path.join(startup.paths.sockets, startup.socket_name)
        self.nodes[node_id] = Node(node_id, row, int(resources.get("object_store_memory", 0)))
        if not row["Alive"]:
            self._dead_nodes.append(node_id)
        else:
            self._head.leases.add_node(node_id, to_units(resources), row["Labels"], resources.get("CPU", 0.0))

    # -- queries ---------------------------------------------------------------------------------------------------

    def on_query(self, sender: bytes, message: control.Query) -> None:
        """A question by name."""
        if message.what in REPORTED:
            self._head.reports.ask(sender, message)
            return
        answer = QUERIES.get(message.what)
        if answer is None:
            known = ", ".join(sorted([*QUERIES, *REPORTED]))
            text = f"The head has no answer to {message.what!r}; it knows: {known}"
            self._head.reply(sender, message.request_id, text, "ValueError")
            return
        self._head.reply(sender, message.request_id, answer(self._head, message.arguments))

    # -- jobs ------------------------------------------------------------------------------------------------------

    def register_job(self, driver: Member, message: control.RegisterDriver) -> control.DriverRegistered:
        """A driver opens its job."""
        head = self._head
        known = self.jobs.get(self._drivers.get(driver.worker_id, b""))
        if known is not None:  # an earlier head has done it, and its answer was lost
            driver.job_id = known["job_id"]
            return control.DriverRegistered(
                message.request_id, known["job_id"], driver.node_id, known["namespace"], self.session()
            )
        job_id = JobID.from_int(self._next_job).binary()
        self._next_job += 1
        # Without a name a job has a namespace of its own, as in Ray.
        namespace = message.namespace or head.config.namespace or _random_uuid()
        address = [driver.address.worker_id, driver.address.endpoint] if driver.address else None
        driver.job_id = job_id
        self._drivers[driver.worker_id] = job_id
        self.jobs[job_id] = {
            "job_id": job_id,
            "pid": message.pid,
            "entrypoint": message.entrypoint,
            "namespace": namespace,
            "config": message.config,
            "driver": address,
            "node_ip": NODE_IP,
            "start_time": time.time(),
            "end_time": 0.0,
            "is_dead": False,
        }
        self._put_job(job_id)
        runtime_env = message.config.get("runtime_env")
        if runtime_env and (runtime_env.get("config") or {}).get("eager_install", True):
            head.leases.want_environment(runtime_env)
        session = self.session()
        return control.DriverRegistered(message.request_id, job_id, driver.node_id, namespace, session)

    def _put_job(self, job_id: bytes) -> None:
        self.put(TablePrefix.JOB, job_id, _encode(self.jobs[job_id]))

    def _finish_job(self, driver: Member) -> None:
        job_id = self._drivers.pop(driver.worker_id, b"")
        if not job_id:
            return
        job = self.jobs[job_id]
        job["is_dead"] = True
        job["end_time"] = time.time()
        self._put_job(job_id)
        self._head.actors.on_job_finished(job_id, driver.worker_id)
        self._head.placement.on_job_finished(job_id)
        self._head.leases.end_job(job_id, "its job has finished")
        if job["config"].get("runtime_env"):
            self._head.environments.on_job_finished(job["config"]["runtime_env"])
        self._finished.append(job_id)
        for _ in range(len(self._finished) - self._kept_jobs):
            self._forget_job(self._finished.popleft())

    def _forget_job(self, job_id: bytes) -> None:
        if self._head.actors.lifecycle.detached_processes(job_id):
            self._finished.append(job_id)  # its detached actors may start again, in the job's surroundings
            return
        del self.jobs[job_id]
        self.delete(TablePrefix.JOB, job_id)

    def warn_job(self, job_id: bytes, text: str) -> None:
        """A line for the user of this job."""
        job = self.jobs.get(job_id)
        if job is not None and job["driver"] and not job["is_dead"]:
            self._head.post(job["driver"][0], control.Warn(text))

    def session(self) -> dict[str, Any]:
        """What a driver gets to know of the session it joined."""
        startup = self._head.startup
        address = f"{NODE_IP}:{startup.port}"
        paths = startup.paths
        return {
            "node_ip_address": NODE_IP,
            "node_ip": NODE_IP,
            "redis_address": None,
            "object_store_address": os.path.join(paths.directory, "store"),
            "raylet_socket_name": os.path.join(paths.sockets, startup.socket_name),
            "webui_url": "",
            "session_dir": paths.directory,
            "session_name": paths.session_name,
            "metrics_export_port": 0,
            "gcs_address": address,
            "address": address,
            "dashboard_agent_listen_port": -1,
            "store_dir": paths.store,
            "log_dir": paths.logs,
            "spill_dir": paths.spill,
            "disk_threshold": startup.disk_threshold,
            "task_oom_retries": startup.oom_retries,
            "temp_dir": os.path.dirname(paths.directory),
            "head_pid": os.getpid(),
            "private": self._head.config.private,
        }

    # -- processes -------------------------------------------------------------------------------------------------

    def put_worker(self, member: Member) -> None:
        """The row of a worker."""
        self.put(TablePrefix.WORKERS, member.worker_id, _encode(member.row()))

    def forget_worker(self, worker_id: bytes) -> None:
        """One that is long dead."""
        self.delete(TablePrefix.WORKERS, worker_id)

    def on_died(self, member: Member) -> None:
        """A process is gone."""
        worker_id = member.worker_id
        self.publisher.remove(worker_id)
        self.durable.feed.remove(worker_id)
        self.tables.stop_waiting(lambda token: token[0] == worker_id)
        notice = self._head.dead[worker_id]
        row = member.row()
        row.update(end_time_ms=int(time.time() * 1000), exit_type=notice.exit_type, exit_detail=notice.detail)
        self.put(TablePrefix.WORKERS, worker_id, _encode(row))
        if member.kind == "driver":
            self._finish_job(member)
        else:
            if not notice.expected and not member.dismissed and not member.node_died:
                # The driver looks for last words in the log files.
                driver = self.jobs.get(member.job_id, {}).get("driver")
                if driver:
                    self._head.post(driver[0], notice)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def open_head_node(self) -> None:
        """The first node, from the head's configuration."""
        head = self._head
        if head.startup.node_id in self.nodes:
            return
        startup, config = head.startup, head.config
        memory, store = machine.default_memory(config.store_dir, config.object_store_memory)
        resources: dict[str, float] = dict(config.resources)
        resources["CPU"] = startup.num_cpus
        if config.num_gpus:
            resources["GPU"] = config.num_gpus
        resources["memory"] = float(memory if config.memory is None else config.memory)
        resources["object_store_memory"] = float(store)
        resources["node:__internal_head__"] = 1.0
        self._add_node(startup.node_id, resources, config.labels, store, "")

    def _add_node(
        self,
        node_id: bytes,
        resources: dict[str, float],
        labels: dict[str, str],
        store: int,
        name: str,
        sender: bytes = b"",
        request_id: int = 0,
    ) -> Node:
        resources = {key: float(quantity) for key, quantity in resources.items() if quantity}
        resources.setdefault(f"node:{NODE_IP}", 1.0)
        startup = self._head.startup
        row = {
            "NodeID": node_id.hex(),
            "Alive": True,
            "NodeManagerAddress": NODE_IP,
            "NodeManagerHostname": socket.gethostname(),
            "NodeManagerPort": startup.port,
            "ObjectManagerPort": startup.port,
            "ObjectStoreSocketName": os.path.join(startup.paths.directory, "store"),
            "RayletSocketName": os.path.join(startup.paths.sockets, startup.socket_name),
            "MetricsExportPort": 0,
            "MetricsAgentPort": 0,
            "DashboardAgentListenPort": -1,
            "NodeName": name or NODE_IP,
            "RuntimeEnvAgentPort": 0,
            "DeathReason": _DEATH_UNSPECIFIED,
            "DeathReasonMessage": "",
            "alive": True,
            "Resources": resources,
            "Labels": {"ray.io/node-id": node_id.hex(), **labels},
        }
        node = self.nodes[node_id] = Node(node_id, row, store)
        units = to_units(resources)
        self._head.leases.add_node(
            node_id, units, {"ray.io/node-id": node_id.hex(), **labels}, resources.get("CPU", 0.0)
        )
        _, effects = self.tables.put(TablePrefix.NODE, node_id, _encode(row))
        self._carry_out_request(effects, sender, request_id, dict(row))
        return node

    def on_add_node(self, sender: bytes, message: control.AddNode) -> None:
        """One more virtual node."""
        node_id = os.urandom(28)
        resources = {name: quantity / 10000 for name, quantity in message.resources.items()}
        store = message.object_store_memory
        if not store:
            store = machine.default_memory(self._head.config.store_dir, None)[1]
        resources.setdefault("object_store_memory", float(store))
        resources.setdefault("memory", float(machine.free_memory()))
        node = self._add_node(node_id, resources, message.labels, store, message.name, sender, message.request_id)
        self.durable.reply(sender, message.request_id, node.row)

    def on_remove_node(self, sender: bytes, message: control.RemoveNode) -> None:
        """A node dies, and all that is on it."""
        head = self._head
        node = self.nodes.get(message.node_id)
        if node is None or not node.row["Alive"]:
            head.reply(sender, message.request_id, f"There is no node {message.node_id.hex()}.", "ValueError")
            return
        if message.node_id == head.startup.node_id:
            text = "The head node cannot be removed: the session ends with it."
            head.reply(sender, message.request_id, text, "ValueError")
            return
        node.row["Alive"] = node.row["alive"] = False
        node.end_time = time.time()
        if message.graceful:
            node.row["DeathReason"], node.row["DeathReasonMessage"] = _DEATH_EXPECTED, "removed"
        else:
            node.row["DeathReason"], node.row["DeathReasonMessage"] = _DEATH_UNEXPECTED, "removed without notice"
        node.row["Resources"] = {}
        # First of all: owners are to expect nothing more from its processes, and to take their work elsewhere.
        for member in head.members.values():
            if member.node_id != message.node_id:
                head.post(member.worker_id, control.NodeDied(message.node_id))
        head.memory.lose_node(message.node_id)
        head.leases.remove_node(message.node_id)
        _, effects = self.tables.put(TablePrefix.NODE, message.node_id, _encode(node.row))
        self._carry_out_request(effects, sender, message.request_id, True)
        self._dead_nodes.append(message.node_id)
        while len(self._dead_nodes) > self._kept_nodes:
            oldest = self._dead_nodes.popleft()
            del self.nodes[oldest]
            self.delete(TablePrefix.NODE, oldest)
        self.durable.reply(sender, message.request_id, True)


def _random_uuid() -> str:
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
