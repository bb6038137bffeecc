"""Key-values of the session, kept by its head: Ray's ``ray.experimental.internal_kv``, with its names and results.

Keys and values are bytes (strings are encoded as UTF-8). A namespace keeps equal keys apart. Where the session can
outlive its head, a put or a deletion is answered once it would survive the head.
"""

from __future__ import annotations

from typing import Any, Union

from miniray import exceptions
from miniray.messages.control import TableDelete, TableGet, TablePut, TableScan
from miniray.processes import current
from miniray.state_machines.table_prefix import TablePrefix

_Text = Union[str, bytes]
_RESERVED = b"@namespace_"
#: the session's part of this process for which `_internal_kv_reset` was called
_reset_for: Any = None


def _bytes(text: Any) -> bytes:
    text = _encoded(text)
    if not isinstance(text, bytes):
        raise TypeError(f"expected bytes, {type(text).__name__} found")
    return text


def _namespace(namespace: _Text | None) -> bytes:
    return b"" if namespace is None else _bytes(namespace)


class GcsClient:
    """The key-values by way of the head: what Ray's `GcsClient` offers of them."""

    def __init__(self, core: Any) -> None:
        self._client = core.head_client

    def internal_kv_get(self, key: bytes, namespace: bytes | None = None, timeout: float | None = None) -> Any:
        """The value, None if there is none."""
        return self._client.request(
            lambda number: TableGet(number, TablePrefix.KV, _bytes(key), _namespace(namespace)), timeout
        )

    def internal_kv_put(
        self, key: bytes, value: bytes, overwrite: bool = True, namespace: bytes | None = None, timeout: Any = None
    ) -> int:
        """Write; the number of keys that are new."""
        key = _bytes(key)
        space = _namespace(namespace)
        if key.startswith(_RESERVED):
            raise exceptions.RaySystemError(f"Key can't start with {_RESERVED.decode()}")
        made: bool = self._client.request(
            lambda number: TablePut(number, TablePrefix.KV, key, _bytes(value), space, bool(overwrite)), timeout
        )
        return int(made)

    def internal_kv_del(
        self, key: bytes, del_by_prefix: bool = False, namespace: bytes | None = None, timeout: Any = None
    ) -> int:
        """Delete; the number of keys that are gone."""
        number_gone: int = self._client.request(
            lambda number: TableDelete(number, TablePrefix.KV, _bytes(key), _namespace(namespace), bool(del_by_prefix)),
            timeout,
        )
        return number_gone

    def internal_kv_keys(self, prefix: bytes, namespace: bytes | None = None, timeout: Any = None) -> list[bytes]:
        """The keys that begin so."""
        found: list[bytes] = self._client.request(
            lambda number: TableScan(number, TablePrefix.KV, _bytes(prefix), _namespace(namespace), keys_only=True),
            timeout,
        )
        return found

    def internal_kv_exists(self, key: bytes, namespace: bytes | None = None, timeout: Any = None) -> bool:
        """Whether there is a value."""
        return self.internal_kv_get(key, namespace, timeout) is not None


def internal_kv_get_gcs_client() -> Any:
    """The client that the functions of this module use, None without a session."""
    core = current.core_or_none()
    return None if core is None or core is _reset_for else GcsClient(core)


def _initialize_internal_kv(gcs_client: Any) -> None:
    """Use the session's key-values (after `_internal_kv_reset`)."""
    global _reset_for
    _reset_for = None


def _internal_kv_reset() -> None:
    """Use no key-values until `_initialize_internal_kv`, or the next session."""
    global _reset_for
    _reset_for = current.core_or_none()


def _internal_kv_initialized() -> bool:
    """Whether there are key-values to use: in a session, that is."""
    return internal_kv_get_gcs_client() is not None


def _internal_kv_get(key: _Text, *, namespace: _Text | None = None) -> bytes:
    """The value of a key, None if there is none.

    Raises:
        AttributeError: there is no session.
    """
    key, space = _checked(key, namespace)
    return internal_kv_get_gcs_client().internal_kv_get(key, space)  # type: ignore[no-any-return]


def _internal_kv_exists(key: _Text, *, namespace: _Text | None = None) -> bool:
    """Whether the key has a value.

    Raises:
        AttributeError: there is no session.
    """
    key, space = _checked(key, namespace)
    return internal_kv_get_gcs_client().internal_kv_exists(key, space)  # type: ignore[no-any-return]


def _internal_kv_put(key: _Text, value: _Text, overwrite: bool = True, *, namespace: _Text | None = None) -> bool:
    """Give a key its value; without `overwrite` a value that is there stays.

    Returns:
        Whether the key had a value already (so False: it is new).

    Raises:
        AttributeError: there is no session.
        RaySystemError: the key begins with ``@namespace_``.
    """
    key, space = _checked(key, namespace)
    value = _encoded(value)
    assert isinstance(value, bytes) and isinstance(overwrite, bool)
    return internal_kv_get_gcs_client().internal_kv_put(key, value, overwrite, space) == 0  # type: ignore[no-any-return]


def _internal_kv_del(key: _Text, *, del_by_prefix: bool = False, namespace: _Text | None = None) -> int:
    """Remove a key, or all that begin so; how many there were.

    Raises:
        AttributeError: there is no session.
    """
    key, space = _checked(key, namespace)
    return internal_kv_get_gcs_client().internal_kv_del(key, del_by_prefix, space)  # type: ignore[no-any-return]


def _internal_kv_list(prefix: _Text, *, namespace: _Text | None = None) -> list[bytes]:
    """The keys that begin so.

    Raises:
        AttributeError: there is no session.
    """
    space = _encoded(namespace)
    return internal_kv_get_gcs_client().internal_kv_keys(prefix, space)  # type: ignore[no-any-return]


def _encoded(text: Any) -> Any:
    return text.encode() if isinstance(text, str) else text


def _checked(key: _Text, namespace: _Text | None) -> tuple[bytes, bytes | None]:
    key = _encoded(key)
    assert isinstance(key, bytes)
    return key, _encoded(namespace)


def _pin_runtime_env_uri(uri: str, *, expiration_s: int) -> None:
    """Nothing to do: runtime environments of this machine are kept as long as they are used."""
