"""Which worker process serves a lease: idle ones are used again, missing ones started, superfluous ones sent home.

A worker is born for a node and a runtime environment. It belongs to nobody until it has run something for a job, and to
that job from then on (its modules, globals and log lines are that job's). So a request is served by an idle worker of
its job, else by an idle one that belongs to nobody, else by a new one.

Rules
-----
1. Never more workers are starting than there are requests for them, nor more than `starting_limit` at once.
2. A worker that comes up late serves whoever waits then, or waits idle.
3. `ATTEMPTS` failures to start in a row refuse all requests of that kind; there is no endless respawn. A worker that
   does not register within `REGISTER_WITHIN` is killed, and counts as a failure.
4. A runtime environment is prepared once, before the first worker of it is started. When that fails, all requests for
   it are refused, and the next one tries again. One that nobody has used for `FORGET_AFTER` is forgotten.
5. Idle workers beyond the node's soft limit (one per CPU) leave after `IDLE_SECONDS`, the longest idle ones first.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Union

from msgspec import Struct

#: seconds
IDLE_SECONDS = 1.0
REGISTER_WITHIN = 60.0
ATTEMPTS = 3
FORGET_AFTER = 10.0

STARTING, IDLE, LEASED, LEAVING = "starting", "idle", "leased", "leaving"

PREPARING, READY = "preparing", "ready"

#: node and runtime environment
Kind = tuple[bytes, str]


class Worker(Struct, eq=False):
    """One worker process."""

    worker_id: bytes
    kind: Kind
    state: str
    since: float
    job_id: bytes = b""
    lease_id: int = 0


class Environment(Struct):
    """A runtime environment that somebody has asked for; "" is none, and always ready."""

    state: str
    since: float


class Prepare(Struct):
    """Make this runtime environment, and tell `prepared` or `unprepared`."""

    runtime_env: str


class Forget(Struct):
    """Nobody uses this runtime environment."""

    runtime_env: str


class Start(Struct):
    """Start a process, and tell `starting` its id."""

    kind: Kind


class Assign(Struct):
    """This worker serves that lease."""

    lease_id: int
    worker_id: bytes


class Dismiss(Struct):
    """Ask the worker to leave."""

    worker_id: bytes
    reason: str


class Kill(Struct):
    """End a worker that never registered."""

    worker_id: bytes


class Refuse(Struct):
    """Workers of this kind do not start: these leases get none."""

    kind: Kind
    lease_ids: list[int] = []


Effect = Union[Prepare, Forget, Start, Assign, Dismiss, Kill, Refuse]


class WorkerPool:
    """All workers of a session. `schedule` after anything changed, and at `wake_at`.

    Args:
        starting_limit: processes that are started at the same time.
    """

    def __init__(self, starting_limit: int) -> None:
        self.workers: dict[bytes, Worker] = {}
        self.wake_at: float | None = None
        self._starting_limit = starting_limit
        # Of each kind there is an entry while there is something of it: kinds come and go with their environments.
        self._idle: dict[Kind, dict[bytes, Worker]] = {}  # least recently used first
        self._requests: dict[Kind, dict[int, bytes]] = {}  # lease that waits for a worker -> its job
        self._starting: dict[Kind, int] = {}  # also those asked for, and not yet named
        self._failures: dict[Kind, int] = {}
        self._soft_limit: dict[bytes, int] = {}
        self._environments: dict[str, Environment] = {}
        self._population: dict[str, int] = {}  # workers of each, in whatever state
        self._wanted: list[str] = []  #: to be prepared before anybody needs a worker of it

    # -- nodes and jobs ------------------------------------------------------------------------------------------------

    def add_node(self, node_id: bytes, soft_limit: int) -> None:
        """A node that keeps so many idle workers."""
        self._soft_limit[node_id] = soft_limit

    def remove_node(self, node_id: bytes) -> list[bytes]:
        """A node is gone: the workers to kill. Requests for it are dropped with their leases."""
        self._soft_limit.pop(node_id, None)
        for table in (self._requests, self._failures):
            for kind in [kind for kind in table if kind[0] == node_id]:
                del table[kind]
        return [worker.worker_id for worker in self.workers.values() if worker.kind[0] == node_id]

    def job_finished(self, job_id: bytes, keep: Collection[bytes] = ()) -> list[bytes]:
        """The workers that belong to the job, which are to leave, but for those to `keep`."""
        mine = [worker for worker in self.workers.values() if worker.job_id == job_id and worker.worker_id not in keep]
        for worker in mine:
            self._leave(worker)
        return [worker.worker_id for worker in mine]

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, lease_id: int, kind: Kind, job_id: bytes) -> None:
        """A lease needs a worker; `schedule` answers."""
        self._requests.setdefault(kind, {})[lease_id] = job_id

    def withdraw(self, lease_id: int) -> None:
        """It needs none any more."""
        for waiting in self._requests.values():
            if waiting.pop(lease_id, None) is not None:
                return

    def returned(self, worker_id: bytes, exiting: bool, now: float) -> None:
        """The lease of this worker ended."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.state != LEASED:
            return
        worker.lease_id = 0
        if exiting:
            worker.state = LEAVING
        else:
            self._to_idle(worker, now)

    # -- runtime environments --------------------------------------------------------------------------------------

    def want(self, runtime_env: str) -> None:
        """It will be needed soon."""
        if runtime_env and runtime_env not in self._environments:
            self._wanted.append(runtime_env)

    def prepared(self, runtime_env: str, now: float) -> None:
        """It is ready."""
        environment = self._environments.get(runtime_env)
        if environment is not None and environment.state == PREPARING:
            environment.state, environment.since = READY, now

    def unprepared(self, runtime_env: str) -> list[Refuse]:
        """It cannot be had, or no longer: whom to refuse."""
        self._environments.pop(runtime_env, None)
        kinds = [kind for kind in self._requests if kind[1] == runtime_env]
        return [Refuse(kind, list(self._requests.pop(kind))) for kind in kinds]

    # -- life of workers -------------------------------------------------------------------------------------------

    def prestart(self, kind: Kind, worker_id: bytes, now: float) -> None:
        """A process was started before anybody asked."""
        self._count_starting(kind, 1)
        self.starting(worker_id, kind, now)

    def starting(self, worker_id: bytes, kind: Kind, now: float) -> None:
        """The process that `Start` asked for has this id."""
        self.workers[worker_id] = Worker(worker_id, kind, STARTING, now)
        self._count(kind)

    def _count(self, kind: Kind) -> None:
        if kind[1]:
            self._population[kind[1]] = self._population.get(kind[1], 0) + 1

    def adopt(self, worker_id: bytes, kind: Kind, job_id: bytes, lease_id: int, now: float) -> None:
        """A worker that an earlier head has started; `lease_id` 0: it is idle."""
        worker = self.workers[worker_id] = Worker(worker_id, kind, LEASED, now)
        self._count(kind)
        worker.job_id = job_id
        worker.lease_id = lease_id
        if not lease_id:
            self._to_idle(worker, now)

    def registered(self, worker_id: bytes, now: float) -> bool:
        """A worker is ready. False: unknown, or registered before."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.state != STARTING:
            return False
        self._count_starting(worker.kind, -1)
        self._failures.pop(worker.kind, None)
        self._to_idle(worker, now)
        return True

    def leaving(self, worker_id: bytes) -> None:
        """A worker said that it goes, or was told to."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            self._leave(worker)

    def died(self, worker_id: bytes, *, failed: bool = True) -> tuple[Worker | None, list[Effect]]:
        """A process is gone. What it was, and whom to refuse. `failed`: it is to blame if it never registered."""
        worker = self.workers.pop(worker_id, None)
        effects: list[Effect] = []
        if worker is None:
            return None, effects
        if worker.kind[1]:
            self._population[worker.kind[1]] -= 1
            if not self._population[worker.kind[1]]:
                del self._population[worker.kind[1]]
        if worker.state == IDLE:
            self._not_idle(worker)
        elif worker.state == STARTING:
            kind = worker.kind
            self._count_starting(kind, -1)
            if failed:
                self._failures[kind] = self._failures.get(kind, 0) + 1
            waiting = self._requests.get(kind)
            if waiting and self._failures.get(kind, 0) >= ATTEMPTS:
                del self._failures[kind]
                effects.append(Refuse(kind, list(waiting)))
                waiting.clear()
        return worker, effects

    def _leave(self, worker: Worker) -> None:
        if worker.state == IDLE:
            self._not_idle(worker)
        elif worker.state == STARTING:
            self._count_starting(worker.kind, -1)
        worker.state = LEAVING

    def _to_idle(self, worker: Worker, now: float) -> None:
        worker.state = IDLE
        worker.since = now
        self._idle.setdefault(worker.kind, {})[worker.worker_id] = worker

    def _not_idle(self, worker: Worker) -> None:
        idle = self._idle[worker.kind]
        del idle[worker.worker_id]
        if not idle:
            del self._idle[worker.kind]

    def _count_starting(self, kind: Kind, step: int) -> None:
        number = self._starting.get(kind, 0) + step
        if number:
            self._starting[kind] = number
        else:
            del self._starting[kind]

    # -- the decision ----------------------------------------------------------------------------------------------

    def schedule(self, now: float) -> list[Effect]:
        """Serve requests, start what is missing, dismiss what is too much."""
        self.wake_at = None
        effects: list[Effect] = []
        while self._wanted:
            self._is_ready(self._wanted.pop(), now, effects)
        for kind in list(self._requests):
            self._serve(kind, effects)
            if not kind[1] or self._is_ready(kind[1], now, effects):
                self._start_missing(kind, effects)
            if not self._requests[kind]:
                del self._requests[kind]
        self._dismiss_idle(now, effects)
        self._kill_late(now, effects)
        if self._environments:
            self._forget_unused(now, effects)
        return effects

    def _is_ready(self, runtime_env: str, now: float, effects: list[Effect]) -> bool:
        environment = self._environments.get(runtime_env)
        if environment is None:
            self._environments[runtime_env] = Environment(PREPARING, now)
            effects.append(Prepare(runtime_env))
            return False
        return environment.state == READY

    def _forget_unused(self, now: float, effects: list[Effect]) -> None:
        wanted = {kind[1] for kind in self._requests}
        for name, environment in list(self._environments.items()):
            if environment.state != READY:
                continue
            if name in self._population or name in wanted:
                environment.since = now
            elif now - environment.since >= FORGET_AFTER:
                del self._environments[name]
                self._failures = {kind: number for kind, number in self._failures.items() if kind[1] != name}
                effects.append(Forget(name))
            else:
                self._wake(environment.since + FORGET_AFTER)

    def _serve(self, kind: Kind, effects: list[Effect]) -> None:
        waiting, idle = self._requests[kind], self._idle.get(kind)
        for lease_id, job_id in list(waiting.items()) if idle else ():
            if not idle:
                return
            worker = self._pick(idle, job_id)
            if worker is None:
                continue
            del waiting[lease_id]
            self._not_idle(worker)
            worker.state = LEASED
            worker.lease_id = lease_id
            worker.job_id = job_id
            effects.append(Assign(lease_id, worker.worker_id))

    @staticmethod
    def _pick(idle: dict[bytes, Worker], job_id: bytes) -> Worker | None:
        """The most recently used worker of the job (its caches are warm), else one that belongs to nobody."""
        fresh = None
        for worker in reversed(idle.values()):
            if worker.job_id == job_id:
                return worker
            if fresh is None and not worker.job_id:
                fresh = worker
        return fresh

    def _start_missing(self, kind: Kind, effects: list[Effect]) -> None:
        while self._starting.get(kind, 0) < len(self._requests[kind]):
            if sum(self._starting.values()) >= self._starting_limit:
                return
            self._count_starting(kind, 1)
            effects.append(Start(kind))

    def _dismiss_idle(self, now: float, effects: list[Effect]) -> None:
        idle_on: dict[bytes, list[Worker]] = {}
        for (node_id, _), idle in self._idle.items():
            idle_on.setdefault(node_id, []).extend(idle.values())
        for node_id, workers in idle_on.items():
            excess = len(workers) - self._soft_limit.get(node_id, 0)
            if excess <= 0:
                continue
            workers.sort(key=lambda worker: worker.since)
            for worker in workers[:excess]:
                if now - worker.since >= IDLE_SECONDS:
                    self._leave(worker)
                    effects.append(Dismiss(worker.worker_id, "idle"))
                else:
                    self._wake(worker.since + IDLE_SECONDS)

    def _kill_late(self, now: float, effects: list[Effect]) -> None:
        if not self._starting:
            return
        for worker in self.workers.values():
            if worker.state == STARTING:
                if now - worker.since >= REGISTER_WITHIN:
                    effects.append(Kill(worker.worker_id))
                    worker.since = now  # it is not killed in each pass until it has ended
                self._wake(worker.since + REGISTER_WITHIN)

    def _wake(self, at: float) -> None:
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at
