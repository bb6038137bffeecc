"""`util.debug`: say a thing once.

As https://docs.ray.io/en/latest/_modules/ray/util/debug.html
"""

from __future__ import annotations

import time

__all__ = ["disable_log_once_globally", "enable_periodic_logging", "log_once", "reset_log_once"]

_PERIOD_S = 60.0

_logged: set[str] = set()
_disabled = False
_periodic = False
_last_logged = 0.0


def log_once(key: str) -> bool:
    """Whether this is the first call with this key in this process."""
    global _last_logged
    if _disabled:
        return False
    if key not in _logged:
        _logged.add(key)
        _last_logged = time.time()
        return True
    if _periodic and time.time() - _last_logged > _PERIOD_S:
        _logged.clear()
        _last_logged = time.time()
    return False


def disable_log_once_globally() -> None:
    """`log_once` returns False from now on, in this process."""
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    """`log_once` forgets its keys when a minute has passed without a first time, in this process."""
    global _periodic
    _periodic = True


def reset_log_once(key: str | None = None) -> None:
    """Forget a key, or all of them."""
    if key is None:
        _logged.clear()
    else:
        _logged.discard(key)
