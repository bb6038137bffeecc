"""The head's glue between owners, the scheduler and the worker pool: it holds no policy."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from miniray.messages import control
from miniray.messages.reconnect import HeldLease
from miniray.messages.startup import SpawnProcess
from miniray.messages.tasks import WorkerAddress
from miniray.processes.head_members import Member
from miniray.state_machines import lease_record as leasing
from miniray.state_machines import scheduler as scheduling
from miniray.state_machines import worker_pool as pooling
from miniray.state_machines.placement import Effect as GroupEffect
from miniray.state_machines.resources import from_units

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

#: how the text of an actor begins that has no runtime environment
_NO_ENVIRONMENT = "Could not create the actor because its associated runtime env failed to be created.\n"


class Leases:
    """Demands in, grants and revocations out."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self.scheduler = scheduling.Scheduler()
        # Twice the CPUs: a fork takes one, and part of a start is waiting.
        self.pool = pooling.WorkerPool(max(4, 2 * int(head.startup.num_cpus)))
        self.wake_at: float | None = None
        self._changed = False

    def open(self, prestarted: list[SpawnProcess]) -> None:
        """The first workers: those that the fork server starts by itself, and the rest."""
        head = self._head
        node_id = head.startup.node_id
        for request in prestarted:
            head.starter.expect(request.key, node_id, request.out, request.err)
            self.pool.prestart((node_id, ""), request.key, head.now)
        for _ in range(head.startup.prestart - len(prestarted)):
            self.pool.prestart((node_id, ""), head.starter.start(node_id).worker_id, head.now)

    # -- messages --------------------------------------------------------------------------------------------------

    def on_demand(self, sender: bytes, message: control.LeaseDemand) -> None:
        """An owner wants so many more leases."""
        if sender not in self._head.members:
            return
        if message.forget:
            self.withdraw(sender, message.class_id)
            return
        self._changed = True
        effects = self.scheduler.demand(
            sender,
            message.class_id,
            message.spec,
            message.count,
            self._head.now,
            depth=message.depth,
            owner_node=message.owner_node,
        )
        self._carry_out(effects)

    def demand(
        self,
        owner: bytes,
        class_id: int,
        spec: control.LeaseSpec,
        *,
        held: dict[str, int],
        depth: int,
        owner_node: bytes,
    ) -> None:
        """The head wants one worker for an actor."""
        self._changed = True
        now = self._head.now
        effects = self.scheduler.demand(owner, class_id, spec, 1, now, depth=depth, owner_node=owner_node, held=held)
        self._carry_out(effects)

    def withdraw(self, owner: bytes, class_id: int) -> None:
        """It wants none after all."""
        self._changed = True
        self._carry_out(self.scheduler.withdraw(owner, class_id))

    def lease_of(self, worker_id: bytes) -> leasing.Lease | None:
        """The lease that this worker serves."""
        worker = self.pool.workers.get(worker_id)
        return self.scheduler.leases.get(worker.lease_id) if worker is not None else None

    def release(self, worker_id: bytes) -> None:
        """The lease of this worker is over, and the worker will leave."""
        self._changed = True
        lease = self.lease_of(worker_id)
        if lease is not None:
            self.scheduler.end(lease.lease_id)
        self.pool.returned(worker_id, True, self._head.now)

    def on_return(self, sender: bytes, message: control.ReturnLease) -> None:
        """An owner gives a lease back."""
        lease = self.scheduler.leases.get(message.lease_id)
        if lease is None or lease.claim.owner != sender:
            return
        self._changed = True
        self.scheduler.end(lease.lease_id)
        self.pool.returned(lease.worker_id, message.worker_exiting, self._head.now)

    def on_blocked(self, sender: bytes, message: control.WorkerBlocked) -> None:
        """A worker waits in `get`, or goes on."""
        self._head.recovery.on_blocked(sender, message.blocked)
        lease = self.lease_of(sender)
        if lease is not None:
            self._changed = True
            self.scheduler.set_blocked(lease, message.blocked)

    # -- what an earlier head has done -------------------------------------------------------------------------------

    def adopt(self, owner: bytes, held: HeldLease, spec: control.LeaseSpec, worker: Member) -> None:
        """This owner holds a lease on this worker."""
        lease = self.scheduler.adopt(
            held.lease_id,
            owner,
            held.class_id,
            spec,
            worker.node_id,
            worker.worker_id,
            self._head.now,
            devices=held.accelerator_ids,
        )
        if lease is not None:
            kind = (worker.node_id, spec.runtime_env)
            self.pool.adopt(worker.worker_id, kind, spec.job_id, held.lease_id, self._head.now)

    def adopt_actor(self, class_id: int, spec: control.ActorSpec, worker: Member) -> None:
        """This actor lives in this worker."""
        placement = spec.placement
        lease = self.scheduler.adopt(
            self._head.startup.epoch << 32 | 1 << 31 | class_id,
            self._head.startup.head_id,
            class_id,
            placement,
            worker.node_id,
            worker.worker_id,
            self._head.now,
            held=spec.resources,
        )
        if lease is not None:
            kind = (worker.node_id, placement.runtime_env)
            self.pool.adopt(worker.worker_id, kind, spec.job_id, lease.lease_id, self._head.now)

    def adopt_worker(self, worker: Member, *, blocked: bool) -> None:
        """This worker is there; whoever holds it has told so before."""
        if worker.worker_id not in self.pool.workers and not worker.dismissed:
            kind = (worker.node_id, worker.runtime_env)
            self.pool.adopt(worker.worker_id, kind, worker.job_id, 0, self._head.now)
        lease = self.lease_of(worker.worker_id)
        if lease is not None and blocked:
            self.scheduler.set_blocked(lease, True)

    # -- workers ---------------------------------------------------------------------------------------------------

    def on_registered(self, worker: Member) -> None:
        """A worker is ready."""
        self._changed = True
        self.pool.registered(worker.worker_id, self._head.now)
        pooled = self.pool.workers.get(worker.worker_id)
        worker.runtime_env = pooled.kind[1] if pooled is not None else ""

    def on_leaving(self, worker_id: bytes) -> None:
        """A worker leaves in good order."""
        self._changed = True
        self.pool.leaving(worker_id)

    def on_lost(self, worker_id: bytes) -> None:
        """A worker that may never have been started is given up, without blame."""
        self._changed = True
        self.pool.died(worker_id, failed=False)

    def on_died(self, member: Member) -> set[bytes]:
        """A process is gone: what it held and wanted is free. The owners to tell."""
        self._changed = True
        audience: set[bytes] = set()
        lost, effects = self.scheduler.owner_gone(member.worker_id)
        for lease in lost:
            self._take_back(lease)
        self._carry_out(effects)
        if member.kind == "worker":
            worker, refusals = self.pool.died(member.worker_id)
            if worker is not None and worker.lease_id:
                ended = self.scheduler.end(worker.lease_id)
                if ended is not None:
                    audience.add(ended.claim.owner)
            for refusal in refusals:
                self._refuse(refusal, member)
        return audience

    def _take_back(self, lease: leasing.Lease) -> None:
        """The owner of this lease is gone. What its worker does for it is of no use to anybody."""
        head = self._head
        worker = head.members.get(lease.worker_id)
        self.pool.leaving(lease.worker_id)
        if worker is not None:
            head.ends.kill(worker, "the owner of its task is gone")

    def end_job(self, job_id: bytes, reason: str) -> None:
        """The job is over: its workers leave."""
        self._changed = True
        detached = self._head.actors.lifecycle.detached_processes(job_id)
        for worker_id in self.pool.job_finished(job_id, detached):
            worker = self._head.members.get(worker_id)
            if worker is not None:
                self._head.ends.dismiss(worker, reason)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def add_node(self, node_id: bytes, resources: dict[str, int], labels: dict[str, str], num_cpus: float) -> None:
        """A node joins."""
        self._changed = True
        self.scheduler.add_node(node_id, resources, labels)
        self.pool.add_node(node_id, max(1, int(num_cpus)))

    def remove_node(self, node_id: bytes) -> None:
        """A node is gone: its workers are killed."""
        self._changed = True
        head = self._head
        lost, group_effects = self.scheduler.remove_node(node_id, head.now)
        for lease in lost:
            worker = head.members.get(lease.worker_id)
            if worker is not None:
                worker.watchers.add(lease.claim.owner)
        for worker_id in self.pool.remove_node(node_id):
            worker = head.members.get(worker_id)
            if worker is not None:
                worker.node_died = True
                head.ends.kill(worker, "its node was removed")
        head.placement.carry_out(group_effects)

    def remove_group(self, group_id: bytes) -> tuple[list[leasing.Lease], list[GroupEffect]]:
        """A placement group is ended: the leases whose workers are to be killed."""
        self._changed = True
        lost, effects, group_effects = self.scheduler.remove_group(group_id)
        self._carry_out(effects)
        return lost, group_effects

    def changed(self) -> None:
        """There is something to decide."""
        self._changed = True

    # -- decisions -------------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Ask the machines what follows, if anything changed or it is time."""
        now = self._head.now
        if not self._changed and (self.wake_at is None or now < self.wake_at):
            return
        if self._head.recovery.is_going_on:
            return
        if self._head.stopping:
            self.wake_at = None
            return
        self._changed = False
        self._head.placement.carry_out(self.scheduler.schedule_groups(now))
        self._carry_out(self.scheduler.schedule(now))
        for effect in self.pool.schedule(now):
            self._carry_out_pool(effect)
        if self._changed:  # a runtime environment was ready at once, or a lease was granted while others wait
            self.schedule()
            return
        times = [at for at in (self.scheduler.wake_at, self.pool.wake_at) if at is not None]
        self.wake_at = min(times) if times else None

    def _carry_out(self, effects: list[leasing.Effect]) -> None:
        head = self._head
        for effect in effects:
            if isinstance(effect, leasing.Place):
                lease = effect.lease
                spec = lease.claim.spec
                self.pool.request(lease.lease_id, (lease.node_id, spec.runtime_env), spec.job_id)
            elif isinstance(effect, leasing.Withdraw):
                self.pool.withdraw(effect.lease_id)
            elif isinstance(effect, leasing.Revoke):
                head.post(effect.owner, control.RevokeLease(effect.lease_id))
            elif isinstance(effect, leasing.Refuse):
                self._refuse_claim(effect)
            else:
                head.gcs.warn_job(effect.claim.spec.job_id, _infeasible_text(effect))

    def _carry_out_pool(self, effect: pooling.Effect) -> None:
        head = self._head
        if isinstance(effect, pooling.Assign):
            self._grant(effect)
        elif isinstance(effect, pooling.Start):
            member = head.environments.start(*effect.kind)
            self.pool.starting(member.worker_id, effect.kind, head.now)
        elif isinstance(effect, pooling.Prepare):
            head.environments.prepare(effect.runtime_env)
        elif isinstance(effect, pooling.Forget):
            head.environments.forget(effect.runtime_env)
        elif isinstance(effect, pooling.Dismiss):
            member = head.members[effect.worker_id]
            # Nobody waits for an idle worker's place: it stays for as long as somebody needs an object that it owns.
            head.ends.dismiss(member, effect.reason, grace=0, drain=True)
        elif isinstance(effect, pooling.Kill):
            print(f"head: worker {effect.worker_id.hex()} did not register in time", file=sys.stderr, flush=True)
            head.ends.kill(head.members[effect.worker_id], "it did not register in time")
        else:
            self._refuse(effect, None)

    def _grant(self, effect: pooling.Assign) -> None:
        head = self._head
        lease = self.scheduler.granted(effect.lease_id, effect.worker_id)
        # Only now may it be revoked for others.
        self._changed = self._changed or self.scheduler.is_waited_for()
        worker = head.members[effect.worker_id]
        if lease is None:
            self.pool.returned(effect.worker_id, False, head.now)
            return
        assert worker.address is not None, "it was told when the worker registered"
        worker.job_id = lease.claim.spec.job_id
        head.memory_monitor.wake()
        address = WorkerAddress(worker.address, worker.node_id, worker.pid)
        if lease.claim.held is not None:
            head.actors.on_granted(lease, address)
            return
        ids = lease.allocation.device_ids()
        head.post(lease.claim.owner, control.LeaseGranted(lease.claim.class_id, lease.lease_id, address, ids))

    def _refuse_claim(self, effect: leasing.Refuse) -> None:
        claim, error = effect.claim, effect.error
        if claim.held is not None:
            self._head.actors.on_refused(claim.class_id, effect.text, error.replace("Task", "Actor"))
        else:
            self._head.post(claim.owner, control.LeaseRefused(claim.class_id, error, effect.text))

    def want_environment(self, fields: dict[str, Any]) -> None:
        """A job has come that will need this runtime environment."""
        self._changed = True
        self.pool.want(json.dumps(fields, sort_keys=True))

    def prepared(self, runtime_env: str) -> None:
        """A runtime environment is ready."""
        self._changed = True
        self.pool.prepared(runtime_env, self._head.now)

    def unprepared(self, runtime_env: str, text: str) -> None:
        """A runtime environment cannot be had: whoever waits for workers of it hears why."""
        self._changed = True
        told: set[leasing.ClaimKey] = set()
        for refusal in self.pool.unprepared(runtime_env):
            for lease_id in refusal.lease_ids:
                claim = self.scheduler.refuse(lease_id)
                if claim is None or claim.key in told:
                    continue
                told.add(claim.key)
                if claim.held is not None:
                    self._head.actors.on_refused(claim.class_id, _NO_ENVIRONMENT + text, "RuntimeEnvSetupError")
                else:
                    refused = control.LeaseRefused(claim.class_id, "RuntimeEnvSetupError", text)
                    self._head.post(claim.owner, refused)

    def _refuse(self, refusal: pooling.Effect, member: Member | None) -> None:
        if not isinstance(refusal, pooling.Refuse):
            return
        tail = member.log_tail() if member is not None else ""
        text = f"{pooling.ATTEMPTS} worker processes in a row ended while they started."
        if tail:
            text += f" The last one wrote:\n{tail}"
        told: set[leasing.ClaimKey] = set()
        for lease_id in refusal.lease_ids:
            claim = self.scheduler.refuse(lease_id)
            if claim is not None and claim.key not in told:
                told.add(claim.key)
                if claim.held is not None:
                    self._head.actors.on_refused(claim.class_id, text)
                else:
                    self._head.post(claim.owner, control.LeaseRefused(claim.class_id, "WorkerCrashedError", text))
                self._head.gcs.warn_job(claim.spec.job_id, text)


def _infeasible_text(effect: leasing.Infeasible) -> str:
    wanted = from_units(effect.claim.spec.resources)
    text = (
        f"Error: No available node types can fulfill resource request {wanted}. "
        "Add suitable node types to this cluster to resolve this issue."
    )
    if effect.lacking:
        most = ", ".join(f"{name}: {quantity:g}" for name, quantity in sorted(effect.lacking.items()))
        text += f" (The most that any one node has of these: {most}.)"
    elif effect.claim.spec.label_selector:
        text += f" (No node with enough of it has the labels {effect.claim.spec.label_selector}.)"
    elif effect.claim.spec.strategy:
        text += " (No node with enough of it is one that the scheduling strategy allows.)"
    if effect.claim.spec.name:
        text += f" It is asked for by {effect.claim.spec.name}, which waits."
    return text
