"""Makes answers comparable: what differs from run to run or by the engine's name alone is replaced by a word.

Replaced: process ids, addresses, ids in hex, memory addresses, session paths, line numbers and folders in tracebacks,
the markers (`^^^^`) that newer Pythons draw below a source line, and the name miniray, which becomes ray. Everything
else stays, colours too: programs match on these texts.
"""

from __future__ import annotations

import re
from typing import Any

_REPLACEMENTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bminiray\b", "ray"),
        (r"(?m)^[ ]*[~^]+[ ]*$\n?", ""),
        (r'File "(?:[^"\n]*/)?([^"/\n]+)", line \d+', r'File "\1", line N'),
        (r"pid=\d+", "pid=PID"),
        (r"\(pid \d+\)", "(pid PID)"),
        (r"ip=(\d+\.){3}\d+", "ip=IP"),
        (r"\b(\d+\.){3}\d+:\d+\b", "IP:PORT"),
        (r"\b(\d+\.){3}\d+\b", "IP"),
        (r"/[\w./-]*/session_(latest|[0-9_-]+)[\w./-]*", "SESSION_PATH"),
        (r"\bsession_[0-9_-]+\b", "SESSION"),
        (r"0x[0-9a-f]{6,}", "ADDRESS"),
        (r"\b[0-9a-f]{56}\b", "ID28"),
        (r"\b[0-9a-f]{48}\b", "ID24"),
        (r"\b[0-9a-f]{36}\b", "ID18"),
        (r"\b[0-9a-f]{32}\b", "ID16"),
    )
)


class NotPlainData(TypeError):
    """A program returned something that JSON cannot hold as it is."""


def normalise_text(text: str) -> str:
    """The text with everything volatile replaced."""
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text


def normalise(value: Any) -> Any:
    """The answer as JSON data: tuples become lists, texts are normalised, anything JSON cannot hold is refused."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return normalise_text(value)
    if isinstance(value, (list, tuple)):
        return [normalise(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise NotPlainData(f"keys must be strings: {list(value)!r}")
        return {normalise_text(key): normalise(item) for key, item in value.items()}
    raise NotPlainData(f"a program returns plain data, not a {type(value).__name__}: {value!r}")
