"""The stored answers: what real Ray said, with the versions of Ray and Python that said it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .catalog import Program, ProgramFile

FOLDER = Path(__file__).resolve().parent / "answers"


@dataclass
class StoredAnswers:
    """One file's answers: `{program: {"digest": ..., "answer": ...}}`.

    The digest names the text of the program that was asked; a program that deviates has miniray's own answer as well.
    """

    ray: str = ""
    python: str = ""
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> StoredAnswers:
        """Those of `programs/<name>.py`; empty ones if none were recorded yet."""
        path = FOLDER / f"{name}.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, name: str) -> None:
        """Writes them in a form that a reviewer can read as a difference."""
        FOLDER.mkdir(exist_ok=True)
        text = json.dumps(vars(self), indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n")

    def stale(self, file: ProgramFile) -> list[str]:
        """Programs without an answer, with one for another text, and answers without a program."""
        digests = {entry.name: entry.digest for entry in file.programs}
        recorded = {name: entry["digest"] for name, entry in self.programs.items()}
        return sorted(name for name in digests | recorded if digests.get(name) != recorded.get(name))

    def expected(self, program: Program, engine: str) -> Any:
        """What an engine has to answer: what Ray answered, or its own documented deviation."""
        entry = self.programs[program.name]
        return entry["miniray" if program.deviates and engine != "ray" else "answer"]

    def comparable(self, program: Program, python: tuple[int, int]) -> str:
        """Empty if the program's answer can be compared on this Python, else why it cannot."""
        recorded = tuple(int(part) for part in self.python.split(".")[:2])
        if python < program.since:
            return f"needs Python {program.since[0]}.{program.since[1]}"
        if program.python_specific and python != recorded:
            return f"its texts are those of Python {recorded[0]}.{recorded[1]}"
        return ""

    def disagreements(
        self, file: ProgramFile, answers: dict[str, Any], engine: str, python: tuple[int, int]
    ) -> dict[str, str]:
        """The programs that answered otherwise than they had to, each with the lines that differ."""
        found = {}
        for name, answer in answers.items():
            if name not in self.programs:
                found[name] = "Ray was never asked: python -m tests.differential.record"
            elif not self.comparable(file[name], python):
                if "value" not in answer:
                    found[name] = f"no value: {_short(answer)}"
                elif lines := difference(self.expected(file[name], engine), answer["value"], "stored", engine):
                    found[name] = lines
        return found


def difference(expected: Any, actual: Any, expected_name: str = "Ray", actual_name: str = "miniray") -> str:
    """Nothing if both are the same, else where they differ and how, a place a line."""
    return "\n".join(_differences(expected, actual, "", expected_name, actual_name))


def _differences(expected: Any, actual: Any, place: str, expected_name: str, actual_name: str) -> Iterator[str]:
    names = (expected_name, actual_name)
    both_have_parts = isinstance(expected, (dict, list)) and isinstance(actual, (dict, list)) and expected and actual
    if not both_have_parts and type(expected) is type(actual) and expected == actual:
        return
    if isinstance(expected, dict) and isinstance(actual, dict) and expected.keys() & actual.keys():
        for key in [*expected, *(key for key in actual if key not in expected)]:
            if key not in actual:
                yield f"{place}.{key}: only {expected_name}: {_short(expected[key])}"
            elif key not in expected:
                yield f"{place}.{key}: only {actual_name}: {_short(actual[key])}"
            else:
                yield from _differences(expected[key], actual[key], f"{place}.{key}", *names)
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(left, right, f"{place}[{index}]", *names)
    elif isinstance(expected, str) and isinstance(actual, str) and "\n" in expected + actual:
        yield f"{place}:"
        yield from difflib.unified_diff(expected.splitlines(), actual.splitlines(), *names, lineterm="", n=1)
    else:
        yield f"{place or 'the whole'}:\n  {expected_name}: {_short(expected)}\n  {actual_name}: {_short(actual)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 2000 else f"{text[:2000]}..."
