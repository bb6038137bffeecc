"""The head's glue between those who make placement groups, the `placement` machine and the scheduler: no policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from miniray.messages import placement as messages
from miniray.messages.durable import GroupRecord
from miniray.state_machines import placement as machine
from miniray.state_machines import scheduler as scheduling
from miniray.state_machines.placement import Group
from miniray.state_machines.resources import UNIT, from_units
from miniray.state_machines.table_prefix import TablePrefix

if TYPE_CHECKING:
    from miniray.processes.head_shell import Head

_encode = msgspec.msgpack.encode
#: seconds that the news of a group may take longer than its handle
NEWS_WITHIN = 1.0
_decode_kept = msgspec.msgpack.Decoder(tuple[messages.PlacementGroupSpec, GroupRecord]).decode
#: what Ray's table shows as a resource of each bundle, so that tasks which need nothing are tied to it
_BUNDLE_UNITS = 1000 * UNIT


class Placement:
    """Placement groups as the head keeps them."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self.groups = head.leases.scheduler.groups
        self._creators: set[bytes] = set()  #: detached actors that made groups

    # -- messages --------------------------------------------------------------------------------------------------

    def on_create(self, sender: bytes, message: messages.CreatePlacementGroup) -> None:
        """Somebody wants a group."""
        head, spec = self._head, message.spec
        actor = head.actors.lifecycle.process_of(sender)
        if actor is not None and actor.spec.detached:
            spec = msgspec.structs.replace(spec, creator=actor.actor_id)
            self._creators.add(actor.actor_id)
        try:
            _, effects = self.groups.create(spec, head.now)
        except machine.GroupNameTakenError as error:
            head.reply(sender, message.request_id, str(error), "RaySystemError")
            return
        head.leases.changed()
        self.carry_out(effects)
        head.gcs.durable.reply(sender, message.request_id, True)

    def on_remove(self, sender: bytes, message: messages.RemovePlacementGroup) -> None:
        """Somebody ends a group."""
        self.remove(message.group_id)
        self._head.gcs.durable.reply(sender, message.request_id, True)

    def on_wait(self, sender: bytes, message: messages.WaitPlacementGroup) -> None:
        """Somebody wants to know when it is reserved."""
        head, group_id = self._head, message.group_id
        head.leases.schedule()  # it may have been made a moment ago
        token = (sender, message.request_id)
        if group_id in self.groups.groups:
            self.carry_out(self.groups.wait(group_id, token))
        else:
            # Its creator's message may come later than that of somebody who got the handle.
            head.call_at(head.now + NEWS_WITHIN, lambda: self.carry_out(self.groups.wait(group_id, token)))

    def restore(self) -> None:
        """Put back the groups of an earlier head, in their order. (Its nodes are there again already.)"""
        head = self._head
        kept = [_decode_kept(value) for _, value in head.gcs.tables.scan(TablePrefix.PLACEMENT_GROUP_SCHEDULE)]
        for spec, record in sorted(kept, key=lambda pair: pair[1].created_at):
            self.groups.restore(spec, record, head.now)
            if spec.creator:
                self._creators.add(spec.creator)
            job = head.gcs.jobs.get(spec.job_id)
            if not spec.detached and not spec.creator and (job is None or job["is_dead"]):
                self.remove(spec.group_id)
        head.leases.changed()

    # -- what the rest of the head tells -----------------------------------------------------------------------------

    def on_job_finished(self, job_id: bytes) -> None:
        """A job is over."""
        for group_id in self.groups.ending_with(job_id=job_id):
            self.remove(group_id)

    def on_actor_dead(self, actor_id: bytes) -> None:
        """An actor is dead; a detached one may have made groups."""
        if actor_id in self._creators:
            self._creators.discard(actor_id)
            for group_id in self.groups.ending_with(actor_id=actor_id):
                self.remove(group_id)

    def remove(self, group_id: bytes) -> None:
        """End a group, and what runs in it."""
        head = self._head
        lost, effects = head.leases.remove_group(group_id)
        for lease in lost:
            worker = head.members.get(lease.worker_id)
            if worker is None:
                continue
            index = int.from_bytes(lease.pool.bundle[len(group_id) :], "little")
            text = (
                "Destroying worker since its placement group was removed. "
                f"Placement group id: {group_id.hex()}, bundle index: {index}, lease id: {lease.lease_id}"
            )
            if lease.claim.held is None:
                worker.watchers.add(lease.claim.owner)
                head.ends.kill(worker, text)
            else:
                head.actors.on_group_removed(lease.worker_id, text)
        self.carry_out(effects)

    # -- what the machine wants --------------------------------------------------------------------------------------

    def carry_out(self, effects: list[machine.Effect]) -> None:
        """Write rows, answer those who wait."""
        head = self._head
        for effect in effects:
            if isinstance(effect, machine.GroupChanged):
                group = effect.group
                head.gcs.put(TablePrefix.PLACEMENT_GROUP, group.group_id, _encode(row(group)))
                if head.gcs.durable.is_open:
                    kept = _encode((group.spec, machine.record_of(group)))
                    head.gcs.put(TablePrefix.PLACEMENT_GROUP_SCHEDULE, group.group_id, kept)
            elif isinstance(effect, machine.GroupSettled):
                for sender, request_id in effect.tokens:
                    head.reply(sender, request_id, effect.reserved)
            else:
                head.gcs.delete(TablePrefix.PLACEMENT_GROUP, effect.group_id)
                head.gcs.delete(TablePrefix.PLACEMENT_GROUP_SCHEDULE, effect.group_id)


def row(group: Group) -> dict[str, Any]:
    """The group's row: what Ray's table shows, and whose it is; bundles by index, ids in hex."""
    spec = group.spec
    latency = (group.reserved_at - group.created_at) * 1000 if group.reserved_at else 0.0
    return {
        "placement_group_id": spec.group_id.hex(),
        "name": spec.name,
        "bundles": [from_units(bundle.resources) for bundle in group.bundles],
        "nodes": [bundle.pool.node_id.hex() if bundle.pool is not None else "" for bundle in group.bundles],
        "strategy": spec.strategy,
        "state": group.state,
        "stats": {
            "end_to_end_creation_latency_ms": latency,
            "scheduling_latency_ms": latency,
            "scheduling_attempt": group.attempts,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": group.progress,
        },
        "creator_job_id": spec.job_id.hex(),
        "is_detached": spec.detached,
        "ray_namespace": spec.namespace,
    }


def shown_resources(scheduler: scheduling.Scheduler, node_id: bytes, *, available: bool) -> dict[str, int]:
    """The resources that the bundles on a node add to what it has, under Ray's names."""
    shown: dict[str, int] = {}
    for group in scheduler.groups.groups.values():
        for bundle in group.bundles:
            pool = bundle.pool
            if pool is None or pool.node_id != node_id:
                continue
            units = pool.resources.available if available else pool.resources.total
            suffix = group.group_id.hex()
            for name, quantity in [*units.items(), ("bundle", _BUNDLE_UNITS)]:
                for shown_name in (f"{name}_group_{suffix}", f"{name}_group_{bundle.index}_{suffix}"):
                    shown[shown_name] = shown.get(shown_name, 0) + max(0, quantity)
    return shown


# -- queries ---------------------------------------------------------------------------------------------------------


def query_group(head: Head, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The row of one group, by `group_id`, or by `name` and `namespace`."""
    if "name" in arguments:
        group = head.placement.groups.named(arguments["name"], arguments["namespace"])
    else:
        group = head.placement.groups.groups.get(arguments["group_id"])
    return None if group is None else row(group)


def query_groups(head: Head, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all groups, the removed that are remembered among them."""
    return [row(group) for group in head.placement.groups.groups.values()]
