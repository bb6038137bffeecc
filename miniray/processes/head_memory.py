"""The accounts of the object store: who has reserved how much of a node's shared memory.

Processes reserve memory in chunks, and keep freed segments warm for their next objects (`system.shared_memory`). So a
store may be full of memory that serves nobody. Before the head refuses a reservation it asks all others on the node to
give back what they do not need (`TrimMemory`), and answers when they have, or when there is room, or after a moment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from miniray.messages import control
from miniray.messages.objects import SegmentsOrphaned
from miniray.processes.head_members import Member

if TYPE_CHECKING:
    from miniray.processes.head_gcs import Node
    from miniray.processes.head_shell import Head

#: seconds that others have to give back what they do not need
TRIM_WITHIN = 1.0
#: how often they are asked, and the seconds in between: news of freed objects may still be on its way to them
ROUNDS = 3
PAUSE = 0.02


class Waiting:
    """A reservation that does not fit yet."""

    __slots__ = ("message", "others", "rounds", "sender")

    def __init__(self, sender: bytes, message: control.ReserveMemory) -> None:
        self.sender = sender
        self.message = message
        self.others: set[bytes] = set()  #: who has not answered yet
        self.rounds = 0


class Memory:
    """Reservations of all nodes."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._waiting: list[Waiting] = []
        #: segments of the dead: which node they count for, and their bytes
        self._orphaned: dict[str, tuple[bytes, int]] = {}

    def on_reserve(self, sender: bytes, message: control.ReserveMemory) -> None:
        """A process wants to fill so many more bytes."""
        head = self._head
        node = head.gcs.nodes.get(message.node_id)
        if node is None:
            head.reply(sender, message.request_id, "This node is gone.", "ObjectStoreFullError")
        elif not self._grant(sender, message, node):
            if not message.patient:
                self._refuse(sender, message, node)
                return
            waiting = Waiting(sender, message)
            self._waiting.append(waiting)
            head.call_at(head.now + TRIM_WITHIN, lambda: self._give_up(waiting))
            self._ask(waiting)

    def _ask(self, waiting: Waiting) -> None:
        """Ask all others on the node for what they do not need."""
        head = self._head
        if waiting not in self._waiting:
            return
        waiting.rounds += 1
        waiting.others = {
            member.worker_id
            for member in head.members.values()
            if member.reserved and member.worker_id != waiting.sender and member.node_id == waiting.message.node_id
        }
        if not waiting.others:
            self._give_up(waiting)
        for other in waiting.others:
            head.post(other, control.TrimMemory())

    def _grant(self, sender: bytes, message: control.ReserveMemory, node: Node) -> bool:
        if node.store_used + message.size > node.store_limit:
            self._strike_missing()
            if node.store_used + message.size > node.store_limit:
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
            elif not waiting.others and waiting.rounds < ROUNDS:
                waiting.others.add(waiting.sender)  # nobody: so that it is not looked at again before it asks
                self._head.call_at(self._head.now + PAUSE, lambda waiting=waiting: self._ask(waiting))  # type: ignore[misc]
            elif not waiting.others:
                self._give_up(waiting)

    def _give_up(self, waiting: Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            node = self._head.gcs.nodes.get(waiting.message.node_id)
            if node is not None:
                self._refuse(waiting.sender, waiting.message, node)

    def adopt(self, member: Member, reserved: int) -> None:
        """A process has reserved so much with an earlier head."""
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
            for waiting in self._waiting:
                waiting.others.discard(sender)
        if self._waiting:
            self._look_again()

    def on_died(self, member: Member) -> None:
        """Of what a dead process had reserved, its segments stay on the account until they are freed."""
        node = self._head.gcs.nodes.get(member.node_id)
        if node is not None and member.reserved:
            from miniray.system.segment import segment_names, unlink  # only when there are segments

            store = self._head.config.store_dir
            left = 0
            for name in segment_names(store, member.pid):
                if member.node_died:
                    unlink(store, name)
                    continue
                size = _allocated(os.path.join(store, name))
                if name not in self._orphaned:
                    self._orphaned[name] = (member.node_id, size)
                    left += size
            node.store_used -= max(0, member.reserved - left)
            member.reserved = 0
        self._waiting = [waiting for waiting in self._waiting if waiting.sender != member.worker_id]
        for waiting in self._waiting:
            waiting.others.discard(member.worker_id)
        if self._waiting:
            self._look_again()

    def lose_node(self, node_id: bytes) -> None:
        """A node is gone, and with it what its dead processes have left. The living ones follow with their deaths."""
        from miniray.system.segment import unlink  # only when a node is removed

        for segment, (where, _) in list(self._orphaned.items()):
            if where == node_id:
                unlink(self._head.config.store_dir, segment)
                self._strike(segment)

    def _strike(self, segment: str) -> None:
        node_id, accounted = self._orphaned.pop(segment, (b"", 0))
        node = self._head.gcs.nodes.get(node_id)
        if node is not None:
            node.store_used -= accounted

    def _strike_missing(self) -> None:
        """Owners unlink large segments themselves, also before they know that the writer is dead."""
        store = self._head.config.store_dir
        for segment in [name for name in self._orphaned if not os.path.exists(os.path.join(store, name))]:
            self._strike(segment)

    def on_orphaned(self, sender: bytes, message: SegmentsOrphaned) -> None:
        """Objects whose writer is dead are free."""
        store = self._head.config.store_dir
        for location in message.locations:
            if os.sep in location.segment or location.segment.startswith("."):
                continue
            path = os.path.join(store, location.segment)
            try:
                # A slab may hold other objects; a segment of its own is as large as its object and some padding.
                if location.offset or os.stat(path).st_size > 2 * location.size + (1 << 16):
                    continue
                os.unlink(path)
            except FileNotFoundError:
                pass  # the owner has done it
            except OSError:
                continue
            self._strike(location.segment)
        if self._waiting:
            self._look_again()


def _allocated(path: str) -> int:
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0
