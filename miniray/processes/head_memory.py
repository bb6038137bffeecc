"""The accounts of the object store: who has reserved how much of a node's shared memory, and what the dead left.

Processes reserve memory in chunks, and keep freed segments warm for their next objects (`system.shared_memory`). So a
store may be full of memory that serves nobody. Before the head refuses a reservation it asks all others on the node to
give back what they do not need (`TrimMemory`); if that is not enough, to move objects to disk; and answers when they
have, or when there is room. Above a threshold it asks before anybody needs the room (`state_machines.spill_planner`).

A dead process's segments stay on the account until the owners of their objects free them. The head looks after them:
it can move them to disk, and unlinks those whose names say that nobody needs them (`system.segment`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from miniray.messages import control
from miniray.messages.objects import Location, SegmentsOrphaned
from miniray.processes.head_members import Member
from miniray.state_machines.spill_planner import SpillPlanner
from miniray.system.ray_settings import SPILLING_ENABLED, SPILLING_THRESHOLD, setting

if TYPE_CHECKING:
    from miniray.processes.head_gcs import Node
    from miniray.processes.head_shell import Head

#: seconds that others have to give back what they do not need
TRIM_WITHIN = 1.0
#: seconds that others have to move objects to disk
SPILL_WITHIN = 10.0
#: how often they are asked, and the seconds in between: news of freed objects may still be on its way to them
TRIMS = 2
PAUSE = 0.02


class Waiting:
    """A reservation that does not fit yet."""

    __slots__ = ("message", "others", "pausing", "rounds", "sender", "token")

    def __init__(self, sender: bytes, message: control.ReserveMemory) -> None:
        self.sender = sender
        self.message = message
        self.others: set[bytes] = set()  #: who has not answered yet
        self.rounds = 0
        self.token = 0  #: of the latest round
        self.pausing = False


#: who stands, in the list of those that are asked, for the segments of the dead, which the head itself moves
_ORPHANS = b"orphans"


class Memory:
    """Reservations of all nodes."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._waiting: list[Waiting] = []
        #: segments of the dead: which node they count for, and their bytes
        self._orphaned: dict[str, tuple[bytes, int]] = {}
        self._writers: set[bytes] = set()  #: processes that have segments, or had some
        self._tokens = count(1)
        self._spilling: dict[tuple[bytes, bytes], int] = {}  #: (node, who) -> token with which it was asked to spill
        self._planners: dict[bytes, SpillPlanner] = {}
        #: what was freed of writers that are about to die, and when
        self._early: dict[bytes, list[tuple[Location, int]]] = {}
        #: of a dead process's slabs: where objects begin that are not free, and when they were made
        self._slots: dict[str, dict[int, int]] = {}
        given = head.config.system_config
        self._threshold = setting(given, *SPILLING_THRESHOLD) if setting(given, *SPILLING_ENABLED) else 1.0
        self._spill_dir = head.startup.paths.spill

    def on_reserve(self, sender: bytes, message: control.ReserveMemory) -> None:
        """A process wants to fill so many more bytes."""
        head = self._head
        node = head.gcs.nodes.get(message.node_id)
        self._writers.add(sender)
        if node is None:
            head.reply(sender, message.request_id, "This node is gone.", "ObjectStoreFullError")
        elif self._grant(sender, message, node):
            if node.store_used > self._threshold * node.store_limit:
                excess = node.store_used - int(self._threshold * node.store_limit)
                self._spill(node, self._planner(node.node_id).in_background, excess)
        elif not message.patient:
            self._refuse(sender, message, node)
        else:
            waiting = Waiting(sender, message)
            self._waiting.append(waiting)
            self._ask(waiting)

    def _planner(self, node_id: bytes) -> SpillPlanner:
        planner = self._planners.get(node_id)
        if planner is None:
            planner = self._planners[node_id] = SpillPlanner()
        return planner

    def _ask(self, waiting: Waiting) -> None:
        """Ask all others on the node for what they do not need; the next time for room at any price."""
        head = self._head
        if waiting not in self._waiting:
            return
        waiting.rounds += 1
        waiting.pausing = False
        waiting.token = token = next(self._tokens)
        node_id = waiting.message.node_id
        if waiting.rounds <= TRIMS:
            waiting.others = set(self._reserved(node_id)) - {waiting.sender}
            for other in waiting.others:
                head.post(other, control.TrimMemory(token))
            within = TRIM_WITHIN
            if not waiting.others:
                waiting.rounds = TRIMS + 1
        if waiting.rounds > TRIMS:
            node = head.gcs.nodes[node_id]
            missing = node.store_used + waiting.message.size - node.store_limit
            self._spill(node, self._planner(node_id).on_demand, missing, waiting.sender)
            # A thread of the sender's own may be among them: what it is about to give back has to be waited for.
            waiting.others = set(self._planner(node_id).asked)
            within = SPILL_WITHIN
        if not waiting.others:
            self._give_up(waiting)
            return
        head.call_at(head.now + within, lambda: self._next(waiting) if waiting.token == token else None)

    def _next(self, waiting: Waiting) -> None:
        """Some have not answered in time."""
        if waiting.rounds > TRIMS:
            self._give_up(waiting)
        else:
            waiting.rounds = TRIMS
            self._ask(waiting)

    def _reserved(self, node_id: bytes) -> dict[bytes, int]:
        """What each process of a node has reserved."""
        members = self._head.members.values()
        return {
            member.worker_id: member.reserved for member in members if member.reserved and member.node_id == node_id
        }

    def _spill(self, node: Node, plan: Callable[..., dict[bytes, int]], needed: int, but: bytes = b"") -> None:
        """Have objects moved to disk, as the planner decides."""
        reserved = self._reserved(node.node_id)
        reserved.pop(but, None)
        orphans = [(name, size) for name, (node_id, size) in self._orphaned.items() if node_id == node.node_id and size]
        if orphans:
            reserved[_ORPHANS] = sum(size for _, size in orphans)
        planned = plan(needed, reserved)
        for who, size in planned.items():
            token = self._spilling[node.node_id, who] = next(self._tokens)
            if who != _ORPHANS:
                self._head.post(who, control.TrimMemory(token, size))
                continue
            chosen = []
            for name, bytes_ in orphans:
                if size > 0:
                    chosen.append(name)
                    size -= bytes_
            thread = threading.Thread(target=self._move_orphans, args=(chosen, node.node_id, token), daemon=True)
            thread.start()

    def _move_orphans(self, names: list[str], node_id: bytes, token: int) -> None:
        """In a thread of its own: the copies take as long as the disk does."""
        from miniray.system.spilling import move_file  # only when there are such segments

        head = self._head
        moved = [
            name
            for name in names
            if move_file(head.config.store_dir, name, self._spill_dir, head.startup.disk_threshold)
        ]
        head.call_soon(lambda: self._orphans_moved(moved, node_id, token))

    def _orphans_moved(self, names: list[str], node_id: bytes, token: int) -> None:
        for name in names:
            known, size = self._orphaned.get(name, (b"", 0))
            node = self._head.gcs.nodes.get(known)
            if node is not None:
                node.store_used -= size
                self._orphaned[name] = known, 0
        left = sum(size for known, size in self._orphaned.values() if known == node_id)
        self._answered(_ORPHANS, node_id, left, token)

    def _answered(self, sender: bytes, node_id: bytes, reserved: int, token: int) -> None:
        """Somebody has given back what it could, when it was asked with that token."""
        has_spilled = self._spilling.get((node_id, sender)) == token
        if has_spilled:
            del self._spilling[node_id, sender]
            self._planner(node_id).answered(sender, reserved)
        for waiting in self._waiting:
            if waiting.token == token or (has_spilled and waiting.rounds > TRIMS):
                waiting.others.discard(sender)
        if self._waiting:
            self._look_again()

    def _grant(self, sender: bytes, message: control.ReserveMemory, node: Node) -> bool:
        if node.store_used + message.size > node.store_limit + _slack(node):
            self._strike_missing()
            if node.store_used + message.size > node.store_limit + _slack(node):
                return False
        node.store_used += message.size
        member = self._head.members.get(sender)
        if member is not None:
            member.reserved += message.size
        self._head.reply(sender, message.request_id, True)
        return True

    def _refuse(self, sender: bytes, message: control.ReserveMemory, node: Node) -> None:
        text = (
            f"The object store of node {message.node_id.hex()[:8]} is full: {node.store_used:,} of "
            f"{node.store_limit:,} bytes are used or reserved, and {message.size:,} more are needed. Drop "
            "references to objects that are not needed any more, or start with a larger object_store_memory."
        )
        self._head.reply(sender, message.request_id, text, "ObjectStoreFullError")

    def _look_again(self) -> None:
        """Memory came back, or somebody has none to give: serve those who wait, in their order."""
        for waiting in list(self._waiting):
            node = self._head.gcs.nodes.get(waiting.message.node_id)
            if node is None or self._grant(waiting.sender, waiting.message, node):
                self._waiting.remove(waiting)
            elif waiting.others or waiting.pausing:
                continue
            elif waiting.rounds <= TRIMS:
                waiting.pausing = True
                self._head.call_at(self._head.now + PAUSE, lambda waiting=waiting: self._ask(waiting))  # type: ignore[misc]
            else:
                self._give_up(waiting)

    def _give_up(self, waiting: Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            node = self._head.gcs.nodes.get(waiting.message.node_id)
            if node is not None:
                self._refuse(waiting.sender, waiting.message, node)

    def adopt(self, member: Member, reserved: int) -> None:
        """A process has reserved so much with an earlier head."""
        self._writers.add(member.worker_id)
        node = self._head.gcs.nodes.get(member.node_id)
        if node is not None:
            node.store_used += reserved
            member.reserved = reserved

    def on_release(self, sender: bytes, message: control.ReleaseMemory) -> None:
        """So many bytes go back."""
        member = self._head.members.get(sender)
        node = self._head.gcs.nodes.get(message.node_id)
        if member is not None and node is not None:
            size = min(message.size, member.reserved)
            member.reserved -= size
            node.store_used -= size
        if message.trimmed:
            self._answered(sender, message.node_id, member.reserved if member is not None else 0, message.trimmed)
        elif self._waiting:
            self._look_again()

    def on_died(self, member: Member) -> None:
        """Of what a dead process had reserved, its segments stay on the account until they are freed."""
        node = self._head.gcs.nodes.get(member.node_id)
        if member.worker_id in self._writers:
            self._writers.discard(member.worker_id)
            left = self._inherit(member)
            if node is not None:
                node.store_used -= max(0, member.reserved - left)
            member.reserved = 0
        for location, freed_at in self._early.pop(member.worker_id, ()):
            self._free_orphan(location, freed_at)
        for planner in self._planners.values():
            planner.gone(member.worker_id)
        self._spilling.pop((member.node_id, member.worker_id), None)
        self._waiting = [waiting for waiting in self._waiting if waiting.sender != member.worker_id]
        for waiting in self._waiting:
            waiting.others.discard(member.worker_id)
        if self._waiting:
            self._look_again()

    def lose_node(self, node_id: bytes) -> None:
        """A node is gone, and with it what its dead processes have left. The living ones follow with their deaths."""
        for name, (where, _) in list(self._orphaned.items()):
            if where == node_id:
                self._unlink_orphan(name)

    def _inherit(self, member: Member) -> int:
        """Look after the segments of a dead process, and unlink those that nobody needs; the bytes that are left.

        Nobody needs what is marked as free, and what the dead process owned. If its node is gone, nothing is left.
        """
        from miniray.system import segment  # only when there are segments

        writer = segment.writer_name(member.worker_id)
        left = 0
        for directory in (self._head.config.store_dir, self._spill_dir):
            for name in segment.segment_names(directory, writer):
                path = os.path.join(directory, name)
                slots = None if segment.is_free(name) else segment.read_ledger(path)
                if member.node_died or segment.is_free(name) or segment.ends_with_writer(name) or slots == {}:
                    segment.unlink(path)
                    continue
                if slots:
                    self._slots[name] = slots
                size = 0 if directory == self._spill_dir else _allocated(path)
                if name not in self._orphaned or size:
                    self._orphaned[name] = (member.node_id, size)
                left += size
        for name in segment.segment_names(self._spill_dir, "." + writer):  # a copy that was not finished
            segment.unlink(os.path.join(self._spill_dir, name))
        return left

    def _strike(self, segment: str) -> None:
        self._slots.pop(segment, None)
        node_id, accounted = self._orphaned.pop(segment, (b"", 0))
        node = self._head.gcs.nodes.get(node_id)
        if node is not None:
            node.store_used -= accounted

    def _strike_missing(self) -> None:
        """Owners mark large segments as free themselves, also before they know that the writer is dead."""
        from miniray.system.segment import FREE, unlink

        for name in list(self._orphaned):
            path = os.path.join(self._head.config.store_dir, name)
            if not os.path.exists(path) and not os.path.exists(os.path.join(self._spill_dir, name)):
                unlink(path + FREE)
                self._strike(name)

    def on_orphaned(self, sender: bytes, message: SegmentsOrphaned) -> None:
        """Objects whose writer is dead are free."""
        for location, freed_at in message.frees:
            if os.sep not in location.segment and not location.segment.startswith("."):
                self._free_orphan(location, freed_at)
        if self._waiting:
            self._look_again()

    def _free_orphan(self, location: Location, freed_at: int) -> None:
        name = location.segment
        if name not in self._orphaned:
            writer = self._head.members.get(location.writer)
            if writer is not None and not writer.dead:  # it has said Goodbye, and we have not noticed yet
                self._early.setdefault(location.writer, []).append((location, freed_at))
            return
        slots = self._slots.get(name)
        if slots is not None:
            if slots.get(location.offset, freed_at) < freed_at:  # else the slot was used again since
                del slots[location.offset]
            if slots:
                return
        self._unlink_orphan(name)

    def _unlink_orphan(self, name: str) -> None:
        from miniray.system.segment import FREE, unlink

        path = os.path.join(self._head.config.store_dir, name)
        for each in (path, path + FREE, os.path.join(self._spill_dir, name)):
            unlink(each)
        self._strike(name)


def _slack(node: Node) -> int:
    """Bytes above the limit that do not count: headers, and the rest of the last pages."""
    return min(1 << 20, node.store_limit >> 6)


def _allocated(path: str) -> int:
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0
