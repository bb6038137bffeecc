"""The pickler: cloudpickle, told about the types that miniray and its users treat in a way of their own.

Two tables are asked before cloudpickle is, both by exact type:

* ``reducers``: what the runtime registers for its own types (``ObjectRef``, ``ActorHandle``). Such a reducer is
  given the pickler too, and notes in ``pickler.contained`` what it met, so that whoever sends the pickle knows
  which references travel inside it.
* ``serializers``: what users register through ``miniray.util.register_serializer``. The deserializer travels in the
  pickle, so that the receiver needs no registration.

Ray does the same with a dispatch table inside its own copy of cloudpickle (``ray/cloudpickle``) and with the
reducers of ``ray/_private/serialization.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

import cloudpickle

Reducer = Callable[["Pickler", Any], Any]

reducers: dict[type, Reducer] = {}
serializers: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {}


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles anything cloudpickle can, plus the registered types; protocol 5 unless told otherwise."""

    def __init__(
        self,
        file: IO[bytes],
        protocol: int | None = None,
        buffer_callback: Callable[[Any], Any] | None = None,
        contained: list[Any] | None = None,
    ) -> None:
        """``contained`` is filled with the references and handles met on the way. None: nobody will know of them.

        That is *out of band*, the user's own pickling, where Ray keeps a referenced object alive for good.
        """
        super().__init__(file, protocol, buffer_callback)
        self.contained = contained

    def reducer_override(self, obj: Any) -> Any:
        """Called by the C pickler for every object that is not of a plain builtin type."""
        kind = type(obj)
        reducer = reducers.get(kind)
        if reducer is not None:
            return reducer(self, obj)
        if kind in serializers:
            serializer, deserializer = serializers[kind]
            return deserializer, (serializer(obj),)
        return super().reducer_override(obj)
