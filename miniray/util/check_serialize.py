"""``ray.util.check_serialize``: find out why a value cannot be pickled."""

from __future__ import annotations

from miniray.system.serializability import FailureTuple, inspect_serializability

__all__ = ["FailureTuple", "inspect_serializability"]
