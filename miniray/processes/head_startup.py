"""What the head knows before it has a ZeroMQ context: its ids and addresses, and how its workers are started."""

from __future__ import annotations

import os
import socket
import time

import msgspec

from miniray.messages.objects import Address
from miniray.messages.startup import EnvironmentPlan, ForkServerConfig, HeadConfig, SpawnProcess
from miniray.processes.worker_config import WorkerConfig
from miniray.system import lifeline, machine, worker_coverage
from miniray.system.ray_settings import DISK_THRESHOLD, setting
from miniray.system.session import SessionPaths

_SOCKET_NAME = "head"
_NO_ENVIRONMENT = EnvironmentPlan()
_EARLY = ("LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "ASAN_", "LSAN_")


class Startup:
    """What `main` has prepared for the head."""

    _storage_lock = -1

    def __init__(self, config: HeadConfig, line: socket.socket) -> None:
        self.config = config
        self.line = line
        self.paths = SessionPaths(config.session_name, config.session_dir, config.store_dir, config.token)
        self.head_id = config.head_id or os.urandom(28)
        self.node_id = config.node_id or os.urandom(28)
        self.epoch = config.epoch
        self.start_time = time.time()
        self.num_cpus = float(machine.cpu_count()) if config.num_cpus is None else config.num_cpus
        self.socket_dir = self.paths.sockets if config.transport == "ipc" else ""
        # A new head does not take the address of the old one: what was meant for that must not reach it.
        self.socket_name = _SOCKET_NAME if self.epoch == 1 else f"{_SOCKET_NAME}{self.epoch}"
        endpoint = f"ipc://{os.path.join(self.socket_dir, self.socket_name)}" if self.socket_dir else ""
        self.address = Address(self.head_id, endpoint)
        self.listener, self.lifeline = lifeline.listen(self.socket_dir or None, self.epoch)
        self.port_holder, self.port = _own_port(config)
        if config.storage:
            self._storage_lock = _lock_storage(config.storage)
        wanted = config.prestart if config.prestart >= 0 else min(2, int(self.num_cpus))
        #: how many workers are started before anybody asks; those of an old head come back
        self.prestart = wanted if self.epoch == 1 else 0
        self.prestarted: list[SpawnProcess] = []  #: those of them that the fork server starts by itself

    @property
    def disk_threshold(self) -> float:
        """Nothing is spilled to a disk that is fuller than this share."""
        return setting(self.config.system_config, *DISK_THRESHOLD)

    @property
    def oom_retries(self) -> int:
        """How often a task runs again when its worker was killed for want of memory; -1: always."""
        return setting(self.config.system_config, "task_oom_retries", -1)

    def leave_storage(self) -> None:
        """The tables' place is for others again."""
        if self._storage_lock >= 0:
            os.close(self._storage_lock)
            self._storage_lock = -1

    def fork_server_config(self) -> ForkServerConfig:
        """What a fork server of this session is told."""
        config = self.config
        preload = [config.worker_target.partition(":")[0], *config.preload]
        if worker_coverage.is_wanted():
            preload.append("coverage")
        return ForkServerConfig(preload, config.start_method, config.session_dir, config.store_dir, config.reconnect_s)

    def environment_fork_server_config(self) -> ForkServerConfig:
        """What the fork server of a runtime environment is told. The session does not end with it."""
        return msgspec.structs.replace(self.fork_server_config(), session_dir="", store_dir="")

    def worker(
        self, worker_id: bytes, node_id: bytes, runtime_env: str = "", plan: EnvironmentPlan = _NO_ENVIRONMENT
    ) -> SpawnProcess:
        """How to start a worker with this id, for an environment and with what its set-up has found."""
        config, paths = self.config, self.paths
        stem = os.path.join(paths.logs, f"worker-{worker_id.hex()}-")
        out, err = stem + "{pid}.out", stem + "{pid}.err"
        worker = WorkerConfig(
            session_name=paths.session_name,
            session_dir=paths.directory,
            socket_dir=self.socket_dir,
            log_dir=paths.logs,
            spill_dir=paths.spill,
            store_dir=paths.store,
            worker_id=worker_id,
            node_id=node_id,
            head=self.address,
            lifeline=self.lifeline,
            transport=config.transport,
            start_method=config.start_method,
            token=config.token,
            version=config.version,
            epoch=self.epoch,
            out_file=out,
            err_file=err,
            disk_threshold=self.disk_threshold,
            oom_retries=self.oom_retries,
            reconnect_s=config.reconnect_s,
            runtime_env=runtime_env,
            working_dir=plan.working_dir,
            import_path=plan.import_path,
        )
        payload = msgspec.msgpack.encode(worker)
        fresh = any(map(counts_at_start_only, plan.env))
        return SpawnProcess(worker_id, config.worker_target, payload, "ray::IDLE", out, err, plan.env, fresh)


def _lock_storage(directory: str) -> int:
    """Nobody else writes there. (In a session's own directory nobody does anyway.)"""
    from miniray.system.journal import lock_directory  # few sessions leave their tables behind

    return lock_directory(directory)


def counts_at_start_only(variable: str) -> bool:
    """Whether an environment variable says something to the loader or to the interpreter, and not to the program."""
    return variable.startswith(_EARLY) and variable != "PYTHONPATH"


def _own_port(config: HeadConfig) -> tuple[socket.socket, int]:
    """A TCP port that nobody else gets: its number is this session's address. Nothing is served there.

    Raises:
        OSError: the port that was asked for is taken, and must be that one.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    for port in (config.port, 0):
        try:
            holder.bind(("127.0.0.1", port))
            holder.listen(1)
            break
        except OSError as error:
            if config.port_required and port:
                raise OSError(error.errno, f"port {port} cannot be used: {error.strerror}") from error
    return holder, holder.getsockname()[1]
