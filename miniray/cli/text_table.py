"""Rows as a table of text, and as YAML: what the commands print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./ @%+-]*\Z")
#: Hexadecimal, as ids are, and no number of another kind.
_HEX = re.compile(r"(?!\d+e\d+\Z|0b[01]+\Z)[0-9a-f]*[a-f][0-9a-f]*\Z")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n"}
_WORDS = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"])
_WIDEST = 60


def table(columns: list[str], rows: Iterable[list[Any]]) -> str:
    """Aligned columns under upper-case names; numbers to the right. Cells may have several lines."""
    cells = [[_lines(value) for value in row] for row in rows]
    right = [all(_is_number(row[index]) for row in cells) and bool(cells) for index in range(len(columns))]
    widths = [
        max(len(name), *(len(line) for row in cells for line in row[index]), 0) for index, name in enumerate(columns)
    ]
    lines = [_join([name.upper() for name in columns], widths, right)]
    for row in cells:
        for number in range(max((len(cell) for cell in row), default=1)):
            lines.append(_join([cell[number] if number < len(cell) else "" for cell in row], widths, right))
    return "\n".join(lines)


def _join(cells: list[str], widths: list[int], right: list[bool]) -> str:
    aligned = (
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _is_number(lines: list[str]) -> bool:
    return len(lines) == 1 and lines[0].lstrip("-").replace(".", "", 1).isdigit()


def _lines(value: Any) -> list[str]:
    if value is None:
        return [""]
    if isinstance(value, dict):
        return [f"{key}: {_short(item)}" for key, item in value.items()] or ["{}"]
    if isinstance(value, list):
        return [_short(item) for item in value] or ["[]"]
    return [_short(line) for line in str(value).splitlines()] or [""]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def yaml(value: Any) -> str:
    """A document of plain data. A small part of YAML, so that nothing else need be installed to write it."""
    return "---\n" + "\n".join(_block(value, "")) + "\n...\n"


def _block(value: Any, indent: str) -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines += _entry(f"{indent}{_scalar(str(key))}:", item, indent + "    ")
        return lines
    if isinstance(value, list) and value:
        lines = []
        for item in value:
            inner = _block(item, indent + "    ")
            lines += [f"{indent}-   {inner[0].strip()}", *inner[1:]]
        return lines
    return [indent + _scalar(value)]


def _entry(key: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, (dict, list)) and value:
        return [key, *_block(value, indent)]
    return [f"{key} {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    text = str(value)
    if not text.isprintable():
        return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
    if text.lower() not in _WORDS and not text.endswith(" ") and (_PLAIN.match(text) or _HEX.match(text)):
        return text
    return "'" + text.replace("'", "''") + "'"
