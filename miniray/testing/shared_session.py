"""The session that the tests of a run share, and its breaks for tests that want one of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import miniray


class SharedSession:
    """Starts sessions with the given arguments of `init`.

    Args:
        options: arguments of `init`.
    """

    #: Names of all sessions that were started here: they are nobody's leak.
    names: ClassVar[set[str]] = set()

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = {"address": "local", **options}
        self._wanted = False

    def start(self) -> Any:
        """Start the shared session; what `init` returned."""
        self._wanted = True
        return self._init()

    def interrupt(self) -> Any:
        """End it for a while, and start one for one test; what `init` returned."""
        return self._init()

    def resume(self) -> None:
        """End the test's session; there is a shared one again if there was one."""
        miniray.shutdown()
        if self._wanted:
            self._init()

    def end(self) -> None:
        """End whichever there is."""
        self._wanted = False
        miniray.shutdown()

    def _init(self) -> Any:
        miniray.shutdown()
        context = miniray.init(**self._options)
        self.names.add(context.address_info["session_name"])
        return context
