"""What miniray says to its user: the logger "miniray", which writes to stderr in Ray's format.

Importing `logging` takes 2 ms, so a program that does not use it gets the very same lines written without it: nobody
can have configured what was never imported. As soon as the program (or cloudpickle) has imported `logging`, the lines
go through the logger, and its level, handlers and format are the user's to change. Like Ray's it does not propagate.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40

FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
_NAMES = {DEBUG: "DEBUG", INFO: "INFO", WARNING: "WARNING", ERROR: "ERROR"}

#: In workers the line goes to the driver, which puts a prefix before it: only the message is written.
plain = False
_logger: Any = None


def say(level: int, message: str, *, caller: int = 1) -> None:
    """Say something to the user.

    Args:
        level: as in `logging`.
        message: a finished text, no format.
        caller: how many calls up the file and line are that the line names; 1 is the caller of this function.
    """
    if "logging" in sys.modules:
        logger().log(level, "%s", message, stacklevel=caller + 1)
        return
    if level < INFO:
        return
    if not plain:
        frame = sys._getframe(caller)
        now = time.time()
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        file = os.path.basename(frame.f_code.co_filename)
        message = f"{moment},{int(now % 1 * 1000):03d}\t{_NAMES[level]} {file}:{frame.f_lineno} -- {message}"
    stream = sys.stderr
    if stream is not None:
        try:
            stream.write(message + "\n")
            stream.flush()
        except (OSError, ValueError):  # closed
            pass


def logger() -> logging.Logger:
    """The logger "miniray"; with a handler for stderr, unless the program has given it one."""
    global _logger
    if _logger is None:
        import logging  # see above

        class StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]  # no generic before 3.11
            """Writes to what `sys.stderr` is when it writes."""

            def __init__(self) -> None:
                logging.Handler.__init__(self)

            @property
            def stream(self) -> Any:
                return sys.stderr

        _logger = logging.getLogger("miniray")
        if _logger.level == logging.NOTSET:
            _logger.setLevel(INFO)
        if not _logger.handlers:
            handler = StderrHandler()
            handler.setFormatter(logging.Formatter("%(message)s" if plain else FORMAT))
            _logger.addHandler(handler)
            _logger.propagate = False
    return _logger  # type: ignore[no-any-return]


def configure(level: int | str, line_format: str | None) -> None:
    """Set level and format, as the parameters `logging_level` and `logging_format` of `init` say.

    Raises:
        ValueError, TypeError: there is no such level.
    """
    if level in ("info", INFO) and not line_format and _logger is None:
        return  # what holds anyway
    import logging  # see above

    checked = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    target = logger()
    target.setLevel(checked)
    if line_format:
        for handler in target.handlers:
            handler.setFormatter(logging.Formatter(line_format))
