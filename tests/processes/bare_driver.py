"""A driver that is nothing but a transport: it says to a head what a test wants said, and collects the answers."""

from __future__ import annotations

import os
import time
from itertools import count
from typing import Any, TypeVar

from miniray.messages import control
from miniray.messages.envelope import Message
from miniray.messages.objects import Address
from miniray.messages.startup import HeadConfig
from miniray.system import lifeline, session
from miniray.system.process_start import HeadProcess, start_head
from miniray.system.sockets import ZmqTransport
from miniray.version import __version__

M = TypeVar("M")
_numbers = count()


class BareDriver:
    """Starts a session of its own, or joins one (`join`)."""

    def __init__(self, join: session.SessionInfo | None = None, version: str = __version__, **config: Any) -> None:
        self.worker_id = os.urandom(28)
        self.version = version
        self.received: list[Message] = []
        self.job_id = b""
        self.node_id = b""
        self.process: HeadProcess | None = None
        self._requests = count(1)
        if join is None:
            config.setdefault("transport", os.environ.get("MINIRAY_TRANSPORT", "ipc"))
            config.setdefault("start_method", os.environ.get("MINIRAY_START_METHOD", "fork"))
            config.setdefault("num_cpus", 2)
            paths = session.create_session()
            self.process = start_head(paths, HeadConfig(__version__, self.worker_id, **config))
            try:
                ready = self.process.wait_ready()
            except RuntimeError:
                self.process.wait_exit(10)
                session.remove_session(paths.directory, paths.store)
                raise
            self.head: Address = ready.address
            self.line = self.process.lifeline
            transport = config["transport"]
        else:
            paths = join.paths
            self.head = join.address
            self.line = lifeline.connect(join.lifeline, self.worker_id, join.token)
            transport = join.transport
        self.paths = paths
        directory = paths.sockets if transport == "ipc" else None
        name = f"t{os.getpid()}-{next(_numbers)}"
        self.transport = ZmqTransport(
            self.worker_id, directory, name, kind="driver", version=version, token=paths.token
        )

    def send(self, *messages: Message) -> None:
        self.transport.send(self.head, list(messages))

    def wait(self, kind: type[M], timeout: float = 20.0, **fields: Any) -> M:
        """The next message of this type (with these fields); others are kept for later."""
        deadline = time.monotonic() + timeout
        while True:
            for message in self.received:
                if isinstance(message, kind) and all(getattr(message, key) == fields[key] for key in fields):
                    self.received.remove(message)
                    return message
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__} {fields} within {timeout} s; got {self.received}"
            envelope = self.transport.receive(left)
            if envelope is not None:
                self.received += [item for item in envelope.messages if not isinstance(item, control.Hello)]

    def register(self, namespace: str = "") -> control.DriverRegistered:
        number = next(self._requests)
        self.send(control.RegisterDriver(number, os.getpid(), "test", namespace, {}))
        answer = self.wait(control.DriverRegistered, request_id=number)
        self.job_id, self.node_id = answer.job_id, answer.node_id
        return answer

    def ask(self, make: Any) -> control.Reply:
        """Send ``make(request_id)`` and return the reply."""
        number = next(self._requests)
        self.send(make(number))
        return self.wait(control.Reply, request_id=number)

    def query(self, what: str, **arguments: Any) -> Any:
        return self.ask(lambda number: control.Query(number, what, arguments)).value

    def demand(self, count: int, class_id: int = 1, depth: int = 0, **resources: float) -> None:
        units = {name: round(quantity * 10000) for name, quantity in (resources or {"CPU": 1}).items()}
        self.send(control.LeaseDemand(class_id, control.LeaseSpec(units, self.job_id), count, depth))

    def lease(self, **resources: float) -> control.LeaseGranted:
        self.demand(1, **resources)
        return self.wait(control.LeaseGranted)

    def registry(self) -> session.SessionInfo:
        info = session.read_registry(self.paths.directory)
        assert info is not None
        return info

    def head_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def close(self) -> None:
        """End the session if it is this driver's, else leave it."""
        if self.process is not None:
            self.send(control.StopSession(0))
            if not self.process.wait_exit(10):
                self.process.kill()
                self.process.wait_exit(10)
                raise AssertionError("the head did not end")
        self.transport.close(goodbye=self.process is None)
        self.line.close()
        if self.process is not None:
            session.remove_session(self.paths.directory, self.paths.store)

    def __enter__(self) -> BareDriver:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
