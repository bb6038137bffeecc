"""``ray.cloudpickle``: cloudpickle, extended by what ``miniray.util.register_serializer`` has registered.

The functions of the same names in the package ``cloudpickle`` know nothing of those serializers, nor of references.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pickle import load, loads
from typing import IO, Any

from cloudpickle import (
    DEFAULT_PROTOCOL,
    list_registry_pickle_by_value,
    register_pickle_by_value,
    unregister_pickle_by_value,
)

from miniray.system.pickler import Pickler

__all__ = [
    "DEFAULT_PROTOCOL",
    "CloudPickler",
    "Pickler",
    "dump",
    "dump_debug",
    "dumps",
    "dumps_debug",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]

CloudPickler = Pickler


def dump(
    obj: Any, file: IO[bytes], protocol: int | None = None, buffer_callback: Callable[[Any], Any] | None = None
) -> None:
    """Pickle ``obj`` into ``file``. Arguments as of ``pickle.dump``; ``protocol`` is the newest unless given."""
    Pickler(file, protocol, buffer_callback).dump(obj)


def dumps(obj: Any, protocol: int | None = None, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle ``obj``. Arguments as of ``pickle.dumps``; ``protocol`` is the newest unless given."""
    file = BytesIO()
    Pickler(file, protocol, buffer_callback).dump(obj)
    return file.getvalue()


def dump_debug(obj: Any, *args: Any, **kwargs: Any) -> None:
    """As ``dump``; its TypeError says which object it was about."""
    try:
        dump(obj, *args, **kwargs)
    except (TypeError, RecursionError) as error:
        raise _explained(error, f"ray.cloudpickle.dump({obj})") from error


def dumps_debug(obj: Any, *args: Any, **kwargs: Any) -> bytes:
    """As ``dumps``; its TypeError says which object it was about."""
    try:
        return dumps(obj, *args, **kwargs)
    except (TypeError, RecursionError) as error:
        raise _explained(error, f"ray.cloudpickle.dumps({obj})") from error


def _explained(error: TypeError | RecursionError, call: str) -> Exception:
    return type(error)(
        f"{call} failed.\nTo check which non-serializable variables are captured in scope, re-run the ray script with "
        "'RAY_PICKLE_VERBOSE_DEBUG=1'."
    )
