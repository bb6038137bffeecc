"""Which files are left out, by the patterns of ``.gitignore`` files.

Rules
-----
1. One pattern per line. Blank lines and those that begin with ``#`` are none; a backslash takes a sign as it is.
2. The last pattern that fits decides; one that begins with ``!`` takes a file back in.
3. A pattern with a slash at its beginning or inside fits from the folder of its file on, others at any depth below.
4. A slash at the end: folders only. ``*`` and ``?`` do not cross a slash, ``**`` does.
5. What is inside a folder that is left out is left out: nobody asks about it.

Source: https://git-scm.com/docs/gitignore
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class IgnoreRules:
    """The patterns of one file or list, for the folder in which it stands."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for rule in map(_rule, lines) if rule is not None]

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Whether a path (relative to the folder, parts joined by ``/``) is left out; None: no pattern fits."""
        for expression, folders_only, left_out in reversed(self._rules):
            if (is_folder or not folders_only) and expression.fullmatch(path):
                return left_out
        return None


def _rule(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    line = line.rstrip("\r\n")
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    left_out = not line.startswith("!")
    if not left_out:
        line = line[1:]
    folders_only = line.endswith("/")
    pattern = line.rstrip("/")
    if not pattern:
        return None
    anchored = "/" in pattern
    expression = ("" if anchored else "(?:.*/)?") + _translate(pattern.lstrip("/"))
    return re.compile(expression, re.DOTALL), folders_only, left_out


def _translate(pattern: str) -> str:
    result = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        sign = pattern[position]
        position += 1
        if rest.startswith("**/"):
            result.append("(?:.*/)?")
            position += 2
        elif rest.startswith("**"):
            result.append(".*")
            position += 1
        elif sign == "*":
            result.append("[^/]*")
        elif sign == "?":
            result.append("[^/]")
        elif sign == "[" and "]" in rest[2:]:
            end = pattern.index("]", position + 1)
            inside = pattern[position:end].replace("\\", "\\\\")
            result.append("[" + ("^" + inside[1:] if inside.startswith("!") else inside) + "]")
            position = end + 1
        elif sign == "\\" and position < len(pattern):
            result.append(re.escape(pattern[position]))
            position += 1
        else:
            result.append(re.escape(sign))
    return "".join(result)
