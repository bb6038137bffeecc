"""``ray.client(...)``: a connection in steps. Deprecated in Ray; here it ends in an `init`.

Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/ray-client.html
"""

from __future__ import annotations

from typing import Any

import miniray
from miniray.init_context import BaseContext

__all__ = ["ClientBuilder", "ClientContext", "client"]


class ClientContext(BaseContext):
    """What `ClientBuilder.connect` returns; usable in ``with``."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.dashboard_url = context.dashboard_url
        self.python_version = context.python_version
        self.ray_version = context.ray_version
        self.ray_commit = context.ray_commit
        self.protocol_version = ""
        self._num_clients = 1

    def disconnect(self) -> None:
        """Leave the session."""
        self._context.disconnect()


class ClientBuilder:
    """Collects what `init` is to be given.

    Args:
        address: the session's; None: a running one, else a new one.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._namespace: str | None = None
        self._env: Any = None
        self._init_args: dict[str, Any] = {}

    def namespace(self, namespace: str) -> ClientBuilder:
        """Where named actors live."""
        self._namespace = namespace
        return self

    def env(self, env: dict[str, Any]) -> ClientBuilder:
        """The runtime environment."""
        self._env = env
        return self

    def connect(self) -> ClientContext:
        """Join the session."""
        context = miniray.init(self.address, namespace=self._namespace, runtime_env=self._env, **self._init_args)
        return ClientContext(context)

    def _init(self, **kwargs: Any) -> ClientBuilder:
        self._init_args.update(kwargs)
        return self


def client(address: str | None = None, _deprecation_warn_enabled: bool = True) -> ClientBuilder:
    """A builder for a connection to a session; there is no client server in between.

    Args:
        address: of a session, or "local" to start one.

    Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/ray-client.html
    """
    return ClientBuilder(address)
