"""``ray.util.connect`` and ``disconnect``: a client's session by hand. Deprecated in Ray; here it is `init`."""

from __future__ import annotations

from typing import Any

import miniray

__all__ = ["connect", "disconnect"]


def connect(conn_str: str, *args: Any, **kwargs: Any) -> Any:
    """Join the session at ``host:port``."""
    return miniray.init(f"ray://{conn_str}", **{k: v for k, v in kwargs.items() if k in ("namespace", "job_config")})


def disconnect() -> None:
    """Leave it."""
    miniray.shutdown()
