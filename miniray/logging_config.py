"""`LoggingConfig`: how driver and workers log, for `init(logging_config=...)`.

It is plain data here; `processes.structured_logging` carries it out.

Source: https://docs.ray.io/en/latest/ray-observability/user-guides/configure-logging.html
"""

from __future__ import annotations

from typing import Any

ENCODINGS = ("TEXT", "JSON")
#: What each line has in any case.
STANDARD = ("asctime", "levelname", "message", "filename", "lineno", "process")
ATTRIBUTES = frozenset(STANDARD) | {
    "args",
    "created",
    "exc_info",
    "exc_text",
    "funcName",
    "levelno",
    "module",
    "msecs",
    "msg",
    "name",
    "pathname",
    "processName",
    "relativeCreated",
    "stack_info",
    "taskName",
    "thread",
    "threadName",
}


class LoggingConfig:
    """Sets up the root logger of a driver and its workers, with the ids of job, worker, node and task in each line.

    Args:
        encoding: "TEXT" or "JSON".
        log_level: the level of the root logger.
        additional_log_standard_attrs: attributes of `logging.LogRecord` that lines have besides.

    Raises:
        ValueError: an unknown encoding or attribute.
    """

    def __init__(
        self,
        encoding: str = "TEXT",
        log_level: str = "INFO",
        additional_log_standard_attrs: list[str] | None = None,
    ) -> None:
        if encoding not in ENCODINGS:
            raise ValueError(f"Invalid encoding type: {encoding}. Valid encoding types are: {list(ENCODINGS)}")
        for attribute in additional_log_standard_attrs or ():
            if attribute not in ATTRIBUTES:
                raise ValueError(
                    f"Unknown python logging standard attribute: {attribute}. The valid attributes are: "
                    f"{set(ATTRIBUTES)}"
                )
        self.encoding = encoding
        self.log_level = log_level
        self.additional_log_standard_attrs = list(additional_log_standard_attrs or ())

    def to_dict(self) -> dict[str, Any]:
        """The parameters by name."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> LoggingConfig:
        """The configuration with these parameters."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoggingConfig) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"LoggingConfig(encoding={self.encoding!r}, log_level={self.log_level!r}, "
            f"additional_log_standard_attrs={self.additional_log_standard_attrs!r})"
        )
