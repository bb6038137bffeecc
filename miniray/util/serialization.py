"""``ray.util.serialization``: serializers of one's own, per type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miniray.system.pickler import serializers

__all__ = ["deregister_serializer", "register_serializer"]


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Serialize instances of exactly ``cls`` (not of its subclasses) by a function of one's own, in this process.

    ``serializer(instance)`` returns what is pickled in its stead; ``deserializer(that)`` makes an instance again. The
    deserializer travels with the value: the receiving process needs no registration to read it. A second call for the
    same class replaces the first. May be called before ``init``.

    As https://docs.ray.io/en/latest/ray-core/objects/serialization.html#customized-serialization.
    """
    serializers[cls] = (serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Undo ``register_serializer``. A class without a serializer is fine."""
    serializers.pop(cls, None)
