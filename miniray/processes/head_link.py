"""A process's tie to its head: the life line, and what happens when the head is gone.

In a private session the end of the head is the end of the session: `on_lost` is called at once. A session that was
started by ``miniray start --head`` may get another head: for `reconnect_s` seconds its processes wait for one. Until
then tasks and calls between drivers and workers go on; what is meant for the head is held back. The new head's registry
file carries a higher **epoch**. Each process connects its life line there and says what it has (`Rejoin`): leases,
demands, its actor, reserved memory; then it sends again what it waits for an answer to, and what was held back.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from miniray.messages import control
from miniray.messages.envelope import Message
from miniray.messages.reconnect import HeldLease, Rejoin, Rejoined
from miniray.system import lifeline
from miniray.system import session as sessions

if TYPE_CHECKING:
    from miniray.processes.core_worker import CoreWorker

#: seconds between two looks for a new head: at first, and in the end
_SOON, _LATER = 0.02, 0.2
#: `Rejoin.request_id`; other requests count from 1
_REJOIN = 1 << 40

#: What `Rejoin` tells anyway, or what follows from it.
_TOLD_BY_REJOIN = (
    control.LeaseDemand,
    control.ReturnLease,
    control.WorkerBlocked,
    control.ReleaseMemory,
    control.WatchWorker,
    control.WatchActor,
    control.Subscribe,
    control.PublishedHandled,
    control.RegisterWorker,
)


class HeadLink:
    """The life line of this process.

    Args:
        line: connected already.
        session_dir: where a new head would announce itself.
        reconnect_s: seconds to wait for one; 0: there will be none.
        on_lost: called once the head is gone for good, in a thread of its own; with the reason, if it is a special one.
    """

    def __init__(
        self,
        core: CoreWorker,
        line: socket.socket,
        *,
        session_dir: str,
        reconnect_s: float,
        on_lost: Callable[[str], None],
    ) -> None:
        self._core = core
        self._session_dir = session_dir
        self._reconnect_s = reconnect_s
        self._on_lost = on_lost
        self._closed = threading.Event()
        if reconnect_s:
            core.add_handlers({Rejoined: self._on_rejoined})
        self._watcher = lifeline.LifelineWatcher(line, self._on_eof)

    def close(self) -> None:
        """Hang up."""
        self._closed.set()
        self._watcher.close()

    def _on_eof(self) -> None:
        core = self._core
        if not self._reconnect_s or core.leaving is not None or self._closed.is_set():
            self._on_lost("")
            return
        with core.lock:
            core.head_away = True
            core.transport.hold(core.head.worker_id)
        deadline = time.monotonic() + self._reconnect_s
        pause = _SOON
        seen: tuple[int, int] = (0, 0)
        while not self._closed.is_set() and not core.head_lost and time.monotonic() < deadline:
            try:
                status = os.stat(os.path.join(self._session_dir, "head.json"))
            except OSError:
                break  # the session was ended
            if (status.st_ino, status.st_mtime_ns) != seen:
                seen = (status.st_ino, status.st_mtime_ns)
                info = sessions.read_registry(self._session_dir)
                if info is not None and info.epoch > core.transport.epoch:
                    try:
                        self._rejoin(info)
                    except OSError:
                        seen = (0, 0)  # that head is gone, too; or it has no room for so many at once
                    else:
                        return
                else:
                    seen = (0, 0) if info is None else seen
            self._closed.wait(pause)
            pause = min(2 * pause, _LATER)
        if not self._closed.is_set():
            self._on_lost(
                f"Failed to connect to GCS within {self._reconnect_s:g} seconds: the head of the session is gone, and "
                "no other one was started in its place."
            )

    def _rejoin(self, info: sessions.SessionInfo) -> None:
        core = self._core
        line = lifeline.connect(info.lifeline, core.worker_id, info.token)
        with core.lock:
            if core.closed:
                line.close()
                return
            head_id = core.head.worker_id
            held = core.transport.release(head_id)
            box = core._outboxes.pop(head_id, None)
            if box is not None:
                held += box.messages
                box.messages = []
            core.head = info.address
            core.transport.epoch = info.epoch
            core.head_away = False
            messages: list[Message] = [self._what_we_have(), *what_to_say_again(core)]
            messages += [
                message
                for message in held
                if not isinstance(message, _TOLD_BY_REJOIN) and not getattr(message, "request_id", 0)
            ]
            core.transport.send(info.address, messages)
        self._watcher = lifeline.LifelineWatcher(line, self._on_eof)
        if self._closed.is_set():  # meanwhile
            self._watcher.close()

    def _what_we_have(self) -> Rejoin:
        core = self._core
        executor = core.executor
        submission = core.tasks.submission
        leases = [
            HeldLease(
                lease.scheduling_class.class_id,
                lease.lease_id,
                lease.worker.address.worker_id,
                lease.worker.node_id,
                lease.accelerator_ids,
            )
            for lease in submission.leases.values()
        ]
        actor = core.actor
        return Rejoin(
            _REJOIN + core.transport.epoch,
            core.mode,
            core.address,
            core.pid,
            core.node_id,
            core.job_id,
            leases,
            {lease.class_id: submission.classes[lease.class_id].spec for lease in leases},
            core.objects.memory.quota.reserved,
            executor is not None and executor.is_blocked(),
            executor is not None and actor is None and not executor.is_quiet(),
            actor.actor_id if actor is not None and actor.is_present else b"",
            actor is not None and actor.is_created,
        )

    def _on_rejoined(self, sender: bytes, message: Rejoined) -> None:
        if message.error:
            reason = message.error
            threading.Thread(target=self._on_lost, args=(reason,), name="miniray-lost", daemon=True).start()


def what_to_say_again(core: CoreWorker) -> list[Message]:
    """What follows `Rejoin`: demands, what is watched, actors that this process made, requests (under the lock)."""
    messages: list[Message] = []
    messages += core.tasks.told_again()
    messages += core.actors.told_again()
    messages += [control.WatchWorker(worker_id) for worker_id in core._watched]
    messages += core.head_client.told_again()
    return messages
