"""The types of a client's refs and handles: classes without instances, for ``isinstance``."""

__all__ = ["ClientActorClass", "ClientActorHandle", "ClientActorRef", "ClientObjectRef", "ClientRemoteFunc"]


class ClientObjectRef:
    """A ref that a client holds."""

    __slots__ = ()


class ClientActorRef:
    """An actor that a client holds."""

    __slots__ = ()


class ClientActorHandle:
    """A handle that a client holds."""

    __slots__ = ()


class ClientActorClass:
    """An actor class of a client."""

    __slots__ = ()


class ClientRemoteFunc:
    """A remote function of a client."""

    __slots__ = ()
