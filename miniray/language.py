"""The languages that a function may be written in, as Ray numbers them; here all are Python."""

from __future__ import annotations

import enum


class Language(enum.Enum):
    """A programming language."""

    PYTHON = 0
    JAVA = 1
    CPP = 2

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__
