"""Asking a head something without being part of its session: what the command line and `Cluster` do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from miniray.messages import control
from miniray.messages.envelope import Message
from miniray.messages.objects import Address
from miniray.system.session import SessionInfo
from miniray.system.sockets import ZmqTransport
from miniray.version import __version__

_names = count()


class ControlClient:
    """A mailbox of its own, and requests to one head. Not for several threads at once.

    Args:
        info: the session, from `system.session.find_session`.

    Raises:
        RuntimeError: the head speaks another version.
    """

    def __init__(self, info: SessionInfo) -> None:
        if info.version != __version__:
            raise RuntimeError(
                f"Version mismatch: the session at {info.gcs_address} runs miniray {info.version}, this is miniray "
                f"{__version__}. Use the same version in both."
            )
        self._head: Address = info.address
        self._numbers = count(1)
        self._transport = ZmqTransport(
            os.urandom(28),
            info.paths.sockets if info.transport == "ipc" else None,
            f"c{os.getpid()}-{next(_names)}",
            kind="client",
            version=__version__,
            token=info.token,
        )
        self._transport.epoch = info.epoch

    def ask(self, make: Callable[[int], Message], timeout: float = 30.0) -> Any:
        """Send ``make(request_id)``; the value of the reply.

        Raises:
            ConnectionError: no answer within `timeout` seconds.
            ValueError: the head refuses, and says why.
        """
        number = next(self._numbers)
        self._transport.send(self._head, [make(number)])
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            envelope = self._transport.receive(left)
            for message in envelope.messages if envelope is not None else ():
                if isinstance(message, control.Reply) and message.request_id == number:
                    if message.error:
                        raise ValueError(message.value)
                    return message.value
        raise ConnectionError(f"The head at {self._head.endpoint} did not answer within {timeout} s.")

    def query(self, what: str, **arguments: Any) -> Any:
        """A question by name."""
        return self.ask(lambda number: control.Query(number, what, arguments))

    def close(self) -> None:
        """Close the mailbox."""
        self._transport.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
