"""Carries out a `LoggingConfig`: a handler at the root logger whose lines say which job, node, worker and task wrote
them.

Fields of a line, in this order: the standard ones, those asked for, what the program gave as ``extra=``, where it comes
from, and the time in nanoseconds.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from miniray.logging_config import ATTRIBUTES, STANDARD, LoggingConfig
from miniray.processes import current
from miniray.system import user_log


def apply(config: LoggingConfig) -> None:
    """Replace the handlers of the root logger and of the logger "miniray", and set their level."""
    formatter = (_JsonLines if config.encoding == "JSON" else _TextLines)(config.additional_log_standard_attrs)
    for target in (logging.getLogger(), user_log.logger()):
        for handler in list(target.handlers):
            target.removeHandler(handler)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        handler.setLevel(config.log_level)
        target.addHandler(handler)
        target.setLevel(config.log_level)


class _TextLines(logging.Formatter):
    def __init__(self, additional: list[str]) -> None:
        super().__init__(user_log.FORMAT)
        self._additional = additional

    def format(self, record: logging.LogRecord) -> str:
        # Parts of the format itself are in the line already.
        shown = {"asctime", "levelname", "message", "filename", "lineno"}
        wanted = [name for name in self._additional if name not in shown]
        rest = _fields(record, wanted)
        return " ".join([super().format(record), *(f"{name}={value}" for name, value in rest.items())])


class _JsonLines(logging.Formatter):
    def __init__(self, additional: list[str]) -> None:
        super().__init__()
        self._additional = [name for name in additional if name not in STANDARD]

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        fields = {name: getattr(record, name) for name in STANDARD}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            fields["exc_text"] = record.exc_text
        fields.update(_fields(record, self._additional))
        return json.dumps(fields, default=str)


def _fields(record: logging.LogRecord, wanted: list[str]) -> dict[str, Any]:
    fields = {name: getattr(record, name, None) for name in wanted}
    fields.update((name, value) for name, value in vars(record).items() if name not in ATTRIBUTES)
    fields.update(_origin())
    fields["timestamp_ns"] = int(record.created * 1e9)
    return fields


def _origin() -> dict[str, str]:
    """Who is logging, as far as it is known."""
    core = current.core_or_none()
    if core is None:
        return {}
    origin = {"job_id": core.job_id.hex(), "worker_id": core.worker_id.hex(), "node_id": core.node_id.hex()}
    task = current.task_context.get()
    if task is not None:
        if task.actor_id:
            origin["actor_id"] = task.actor_id.hex()
        origin["task_id"] = task.task_id.hex()
        origin["task_name"] = task.name
        origin["task_func_name"] = task.function_name
    return origin
