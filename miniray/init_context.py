"""What `init` does with its parameters, and what it returns."""

from __future__ import annotations

import os
import sys
from typing import Any

from miniray import init_options, options
from miniray.messages.startup import HeadConfig
from miniray.processes.driver import DriverSession, connect, job_config
from miniray.version import RAY_VERSION, __version__


def start_session(given: dict[str, Any]) -> DriverSession:
    """Check the parameters of `init`, then join or start a session.

    Raises:
        as `init`.
    """
    values = init_options.check_init_options(given)
    _set_logging(values)
    address = values["address"]
    if address is None:
        address = os.environ.get("MINIRAY_ADDRESS") or os.environ.get("RAY_ADDRESS") or None
    config = HeadConfig(
        version=__version__,
        transport=os.environ.get("MINIRAY_TRANSPORT", "ipc"),
        start_method=os.environ.get("MINIRAY_START_METHOD", "fork" if hasattr(os, "fork") else "spawn"),
        num_cpus=_checked_cpus(values["num_cpus"]),
        num_gpus=values["num_gpus"],
        memory=values["memory"] or values["_memory"],
        object_store_memory=values["object_store_memory"],
        resources=values["resources"] or {},
        labels=values["labels"] or {},
        preload=["numpy"] if "numpy" in sys.modules else [],
        session_dir=values["_temp_dir"] or "",
    )
    quantities = {**config.resources}
    if values["num_gpus"] is not None:
        quantities["GPU"] = values["num_gpus"]
    init_options.check_node_resources(quantities)
    log_to_driver = values["log_to_driver"]
    if log_to_driver is None:
        log_to_driver = os.environ.get("RAY_LOG_TO_DRIVER", "1").lower() not in ("0", "false")
    job = job_config(values["namespace"], log_to_driver=bool(log_to_driver), strict=options.strict_mode())
    return connect(address, config, job)


def _checked_cpus(num_cpus: Any) -> float | None:
    if num_cpus is not None:
        init_options.check_node_resources({"CPU": num_cpus})
    return num_cpus  # type: ignore[no-any-return]


def _set_logging(values: dict[str, Any]) -> None:
    """The level of the logger "miniray". The logging module is only touched when the user asks for another level."""
    level = values["logging_level"]
    if values["configure_logging"] and level not in ("info", 20):
        import logging

        logging.getLogger("miniray").setLevel(level.upper() if isinstance(level, str) else level)


class RayContext:
    """What `init` returns: the session's addresses, readable as attributes, as a mapping, and usable in `with`.

    Source: https://docs.ray.io/en/latest/ray-core/api/doc/ray.init.html
    """

    def __init__(self, session: DriverSession) -> None:
        self._session = session
        self.dashboard_url = ""
        self.python_version = "{}.{}.{}".format(*sys.version_info[:3])
        self.ray_version = RAY_VERSION
        self.ray_commit = f"miniray-{__version__}"
        row = session.row
        self.address_info: dict[str, Any] = {
            "node_ip_address": row.get("node_ip", "127.0.0.1"),
            "object_store_address": row.get("store_dir", session.paths.store),
            "raylet_socket_name": session.core.head.endpoint,
            "webui_url": self.dashboard_url,
            "session_name": session.paths.session_name,
            "session_dir": session.paths.directory,
            "gcs_address": row.get("gcs_address", ""),
            "address": row.get("gcs_address", ""),
            "node_id": row["node_id"],
        }

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __contains__(self, key: object) -> bool:
        return key in self.address_info

    def __len__(self) -> int:
        return len(self.address_info)

    def __iter__(self) -> Any:
        return iter(self.address_info)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a mapping."""
        return self.address_info.get(key, default)

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Shut the session down."""
        from miniray import api  # the other way round at import time

        if api._session is self._session:
            api.shutdown()

    def __repr__(self) -> str:
        return (
            f"RayContext(dashboard_url={self.dashboard_url!r}, python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r}, ray_commit={self.ray_commit!r})"
        )
