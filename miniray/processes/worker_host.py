"""What a worker lives in: a process of its own, or (local mode, `local_host`) a thread of the driver's process.

The executor decides that a task is to be interrupted, or that the worker is to end at once; how that is done differs.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Protocol

from miniray.system import process_title, worker_coverage

if TYPE_CHECKING:
    from miniray.processes.executor import Executor


class WorkerHost(Protocol):
    """What the executor needs of it."""

    own_process: bool  #: environment variables and the working directory belong to this worker alone

    def serve(self, executor: Executor) -> None:
        """This thread begins to run tasks."""

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the user code that runs there, if `executor.is_wanted` when it comes (under the
        lock).
        """

    def die(self) -> None:
        """End the worker at once, as ``kill -9`` does (under the lock)."""

    def show(self, name: str) -> None:
        """Say what it does, to whoever looks at the processes."""


class ProcessHost:
    """A process; its main thread runs the tasks."""

    own_process = True

    def __init__(self) -> None:
        self._main_thread = threading.get_ident()

    def serve(self, executor: Executor) -> None:
        signal.signal(signal.SIGINT, executor.on_sigint)

    def interrupt(self) -> None:
        # `interrupt_main` sets a flag that a sleeping system call does not see; a real signal ends the sleep.
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self._main_thread, signal.SIGINT)
        else:
            import _thread

            _thread.interrupt_main()

    def die(self) -> None:
        worker_coverage.save()
        os.kill(os.getpid(), signal.SIGKILL)

    def show(self, name: str) -> None:
        process_title.set_title("ray::" + name)
