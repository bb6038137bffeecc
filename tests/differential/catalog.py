"""What a program is, and how the programs of a file are found.

A program is a function `name(ray) -> plain data` in a file of `programs/`. `ray` is the module under test; a program
never imports it by name, so that the same text runs on every engine. Each file says two things besides its programs:
`AREA`, one of the areas of `bullets.py`, and `SESSION`, the arguments of the one `init` that its programs share;
`nodes` among them makes it a cluster of nodes with these arguments, the first one the head.
A program whose subject is the start itself says `fresh=True`: it has a process of its own and calls `init` itself.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from . import programs as programs_package

ProgramFunction = Callable[[Any], Any]


@dataclass(frozen=True)
class Program:
    """One comparison: what it runs, which promises it stands for, and how it wants to be run."""

    name: str
    bullets: tuple[str, ...]
    function: ProgramFunction
    fresh: bool
    alone: bool
    python_specific: bool
    since: tuple[int, int]
    deviates: str | None

    @property
    def digest(self) -> str:
        """Names this text of the program, so that an answer recorded for another text is noticed."""
        return hashlib.sha256(inspect.getsource(self.function).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ProgramFile:
    """A file of programs that share one session."""

    name: str
    area: str
    session: dict[str, Any]
    programs: tuple[Program, ...]

    def __getitem__(self, name: str) -> Program:
        for candidate in self.programs:
            if candidate.name == name:
                return candidate
        raise KeyError(f"no program {name!r} in {self.name}.py")


def program(
    *bullets: str,
    fresh: bool = False,
    alone: bool = False,
    python_specific: bool = False,
    since: tuple[int, int] = (3, 10),
    deviates: str | None = None,
) -> Callable[[ProgramFunction], ProgramFunction]:
    """Makes a function a program that stands for these bullets (keys of `bullets.py`).

    `fresh`: it has a process of its own and starts its session itself; `alone`: and no other session of this run may be
    there meanwhile. `python_specific`: the answer holds texts that Python itself words differently from version to
    version; it is compared only where the Python is the one that the answer was recorded with. `since`: the first
    Python that can run it. `deviates`: a documented, wanted difference, and its reason; miniray's own answer then
    stands beside Ray's, and miniray is held to that.
    """

    def mark(function: ProgramFunction) -> ProgramFunction:
        entry = Program(function.__name__, bullets, function, fresh or alone, alone, python_specific, since, deviates)
        function.__differential_program__ = entry  # type: ignore[attr-defined]
        return function

    return mark


def program_file(name: str) -> ProgramFile:
    """The programs of `programs/<name>.py` (or, with a dot before it, of a module beside that folder), as written."""
    return programs_in(importlib.import_module(f".{name}", programs_package.__name__))


def programs_in(module: ModuleType) -> ProgramFile:
    """The programs that a module defines."""
    found = [getattr(value, "__differential_program__", None) for value in vars(module).values()]
    return ProgramFile(
        name=module.__name__.rpartition(".")[2],
        area=module.AREA,
        session=module.SESSION,
        programs=tuple(entry for entry in found if entry is not None and entry.function.__module__ == module.__name__),
    )


def all_files() -> list[ProgramFile]:
    """Every file of programs, by name."""
    return [
        program_file(name) for name in sorted(info.name for info in pkgutil.iter_modules(programs_package.__path__))
    ]
