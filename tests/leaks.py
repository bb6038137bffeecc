"""What a test module may leave behind: nothing.

`Snapshot.take()` counts what this test run holds; `leaks_since(before)` names what has been added. Looked at are

* processes: those with this run's `MINIRAY_TEST_RUN` in the environment they were started with. Forked workers inherit
  it and a process title cannot hide it, so it finds also those that left the process group and were adopted by init;
* threads, of Python and of ZeroMQ;
* file descriptors, sockets among them;
* session directories under this run's private `MINIRAY_TMPDIR`;
* shared memory in /dev/shm.
"""

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RUN_VARIABLE = "MINIRAY_TEST_RUN"
ROOT_VARIABLE = "MINIRAY_TMPDIR"

#: multiprocessing starts these two on its own and ends them when the interpreter exits.
PROCESSES_OF_THE_STANDARD_LIBRARY = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def session_root() -> Path:
    """The folder that holds the session directories of this test run."""
    try:
        from miniray.system.session import session_root as root
    except ImportError:
        return Path(os.environ.get(ROOT_VARIABLE) or f"/tmp/miniray-{os.getuid()}")
    return Path(root())


def processes_of_this_run() -> dict[int, str]:
    """Living processes that were started, directly or not, by this test run, with a line about each."""
    token = os.environ.get(RUN_VARIABLE)
    found = {}
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.environ().get(RUN_VARIABLE) != token:
                continue
            line = " ".join(process.cmdline()) or process.name()
            if process.status() == psutil.STATUS_ZOMBIE or any(
                name in line for name in PROCESSES_OF_THE_STANDARD_LIBRARY
            ):
                continue
            found[process.pid] = f"{line[:150]} (parent {process.ppid()})"
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def zeromq_threads() -> int:
    """How many background threads ZeroMQ has in this process: a context that was not closed keeps its two or more."""
    count = 0
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                count += (task / "comm").read_text().startswith("ZMQbg")
    return count


def open_files() -> dict[int, str]:
    """File descriptors of this process and what they are."""
    found = {}
    folder = "/proc/self/fd"
    try:
        names = os.listdir(folder)
    except OSError:  # no /proc: then only their number can be known
        return dict.fromkeys(range(psutil.Process().num_fds()), "unknown")
    for name in names:
        with contextlib.suppress(OSError):
            target = os.readlink(f"{folder}/{name}")
            if target != f"/proc/{os.getpid()}/fd":  # the listing itself
                found[int(name)] = target
    return found


def shared_memory() -> set[str]:
    """Stores in /dev/shm that belong to sessions of this run, or do not say to which session they belong."""
    if sys.platform != "linux":
        return set()
    private = os.environ.get(ROOT_VARIABLE, "")
    found = set()
    for path in Path("/dev/shm").glob(f"miniray-{os.getuid()}*"):
        try:
            owner = os.readlink(path / ".session")
        except OSError:
            owner = private
        if owner.startswith(private):
            found.add(str(path))
    return found


def session_entries() -> set[str]:
    """The sessions in the session root, and in those of differential programs. The lock of the root itself stays."""
    found = set()
    with contextlib.suppress(OSError):
        found = {str(path) for path in session_root().iterdir() if path.name != "lock"}
    if private := os.environ.get(ROOT_VARIABLE):
        found |= {str(path) for path in Path(private).glob("d-*/miniray-*/s-*")}
    return found


@dataclass
class Snapshot:
    """What this test run holds at one moment."""

    processes: dict[int, str] = field(default_factory=dict)
    threads: set[threading.Thread] = field(default_factory=set)
    zeromq_threads: int = 0
    files: dict[int, str] = field(default_factory=dict)
    shared_memory: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)

    @classmethod
    def take(cls) -> "Snapshot":
        gc.collect()
        return cls(
            processes=processes_of_this_run(),
            threads=set(threading.enumerate()),
            zeromq_threads=zeromq_threads(),
            files=open_files(),
            shared_memory=shared_memory(),
            sessions=session_entries(),
        )


def leaks_since(before: Snapshot) -> list[str]:
    """One line for each thing that is held now and was not held before."""
    now = Snapshot.take()
    lines = [f"process {pid}: {now.processes[pid]}" for pid in sorted(set(now.processes) - set(before.processes))]
    lines += [f"thread: {thread}" for thread in now.threads - before.threads if thread.is_alive()]
    if now.zeromq_threads > before.zeromq_threads:
        lines.append(f"ZeroMQ: {now.zeromq_threads - before.zeromq_threads} threads of a context that is not closed")
    if len(now.files) > len(before.files):
        lines += [
            f"file descriptor {number}: {target}"
            for number, target in sorted(now.files.items())
            if before.files.get(number) != target
        ]
    lines += [f"shared memory: {path}" for path in sorted(now.shared_memory - before.shared_memory)]
    lines += [f"session: {path}" for path in sorted(now.sessions - before.sessions)]
    return lines


def wait_until_clean(before: Snapshot, timeout: float = 10) -> list[str]:
    """Wait until nothing is left over, or the time is up; return what is left. Ends take a moment, leaks stay."""
    deadline = time.monotonic() + timeout
    while True:
        lines = leaks_since(before)
        if not lines or time.monotonic() >= deadline:
            return lines
        time.sleep(0.05)


def end(pids: Iterable[int]) -> None:
    """Kill leaked processes of this run, so that one leak does not fail the modules after it too."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.environ().get(RUN_VARIABLE) == os.environ.get(RUN_VARIABLE):
                process.kill()
