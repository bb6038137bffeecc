"""The deaths of other processes, as events of an asyncio loop, and without a doubt at any moment.

On Linux a process file descriptor (`pidfd`) becomes readable when its process ends; polling it costs 1 us and cannot
be fooled by a process id that is used again, nor by a zombie. Elsewhere, processes are looked up twice a second.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable

import psutil

_LOOK_EVERY_S = 0.5


class ProcessWatch:
    """Watches processes until they die.

    Args:
        died: called in the running loop's thread with the id of each watched process that ended.
    """

    def __init__(self, died: Callable[[int], None]) -> None:
        self._died = died
        self._pidfds: dict[int, int] = {}
        self._looked_up: dict[int, psutil.Process] = {}
        self._looking = False

    def watch(self, pid: int) -> None:
        """Watch a process. If it is gone already, `died` is called soon."""
        if pid in self._pidfds or pid in self._looked_up or pid == os.getpid():
            return
        loop = asyncio.get_running_loop()
        try:
            if hasattr(os, "pidfd_open"):
                try:
                    self._pidfds[pid] = pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    raise
                except OSError:  # too old a kernel, or no descriptor left
                    self._looked_up[pid] = psutil.Process(pid)
                else:
                    loop.add_reader(pidfd, self._ended, pid)
                    return
            else:
                self._looked_up[pid] = psutil.Process(pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            loop.call_soon(self._died, pid)
            return
        if not self._looking:
            self._looking = True
            loop.call_later(_LOOK_EVERY_S, self._look)

    def alive(self, pid: int) -> bool:
        """Whether a watched process lives at this moment."""
        pidfd = self._pidfds.get(pid)
        if pidfd is not None:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return not poll.poll(0)
        process = self._looked_up.get(pid)
        if process is not None:
            try:
                return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
            except psutil.NoSuchProcess:
                return False
        return pid == os.getpid()

    def _ended(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
            self._died(pid)

    def _look(self) -> None:
        for pid in [pid for pid in self._looked_up if not self.alive(pid)]:
            del self._looked_up[pid]
            self._died(pid)
        self._looking = bool(self._looked_up)
        if self._looking:
            asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)
