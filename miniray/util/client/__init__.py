"""``ray.util.client``: names of Ray's client, for programs that ask whether they run in one. Here nobody does."""

from __future__ import annotations

from typing import Any

import miniray

__all__ = ["RayAPIStub", "num_connected_contexts", "ray"]


class RayAPIStub:
    """Stands for the connection of a client: there is none, and what it is asked for is done directly."""

    def is_connected(self) -> bool:
        """Whether there is a connection: never."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(miniray, name)


ray = RayAPIStub()


def num_connected_contexts() -> int:
    """How many connections there are: none."""
    return 0
