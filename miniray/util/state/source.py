"""Where the state API asks: this process's own session, or a running one that an address names."""

from __future__ import annotations

from typing import Any

from miniray.exceptions import RaySystemError
from miniray.messages.control import Query
from miniray.processes import current
from miniray.processes.control_client import ControlClient
from miniray.system import session
from miniray.util.state.exception import ServerUnavailable

NOT_FOUND = (
    "Could not find any running Ray instance. Please specify the one to connect to by setting the `--address` flag or "
    "`RAY_ADDRESS` environment variable."
)


class Source:
    """Asks one head.

    Args:
        address: as for `init`; None or "auto": the session of this process, else that of ``RAY_ADDRESS`` or
            ``MINIRAY_ADDRESS``, else the newest one of this user.

    Raises:
        ConnectionError: there is no such session.
    """

    def __init__(self, address: str | None = None) -> None:
        core = current.core_or_none()
        if core is not None and not core.closed and not core.head_lost:
            # A worker was told less about the session than a driver.
            ask = core.head_client.request
            about = core.session if "gcs_address" in core.session else ask(lambda number: Query(number, "session"))
            if address in (None, "", "auto") or _names(address, about):
                self._core: Any = core
                self.address: str = about["gcs_address"]
                return
        self._core = None
        self._info = _find(address)
        self.address = self._info.gcs_address

    def query(self, what: str, timeout: float = 30.0, **arguments: Any) -> Any:
        """Ask the head by name.

        Raises:
            ServerUnavailable: it did not answer.
        """
        try:
            if self._core is not None:
                return self._core.head_client.request(lambda number: Query(number, what, arguments), timeout)
            with ControlClient(self._info) as client:
                return client.ask(lambda number: Query(number, what, arguments), timeout)
        except (ConnectionError, RaySystemError) as error:
            raise ServerUnavailable(f"Failed to make request to {self.address}. {error}") from error


def _names(address: str | None, mine: dict[str, Any]) -> bool:
    given = (address or "").removeprefix("ray://").removeprefix("http://").rstrip("/")
    port = mine["gcs_address"].rpartition(":")[2]
    return given in (mine["gcs_address"], mine["session_name"], f"localhost:{port}")


def _find(address: str | None) -> session.SessionInfo:
    if not address or address == "auto":
        address = session.environment_address()[1] or "auto"
    if address == "auto":
        running = session.running_sessions()
        found = next((info for info in running if not info.private), running[0] if running else None)
        if found is None:
            raise ConnectionError(NOT_FOUND)
        return found
    try:
        info = session.find_session(address)
    except ConnectionError as error:
        raise ConnectionError(f"{NOT_FOUND} ({error})") from error
    if info is None:
        raise ConnectionError(NOT_FOUND)
    return info
