"""What programs use to turn what happened into plain data: which error, of which kinds, with which text."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def type_name(kind: type) -> str:
    """The name of a type as users write it: builtins alone, Ray's own with their module, others alone."""
    module = kind.__module__
    if module.split(".")[0] in ("ray", "miniray"):
        return f"{module}.{kind.__qualname__}".replace("miniray", "ray", 1)
    return kind.__qualname__.rpartition("<locals>.")[2]


def public_bases(kind: type) -> list[str]:
    """The types that a type of error derives from, without private ones and those that say nothing."""
    return [
        type_name(base)
        for base in kind.__mro__[1:]
        if base not in (object, BaseException) and not base.__name__.startswith("_")
    ]


def error_answer(error: BaseException, text: str = "full") -> dict[str, Any]:
    """An error as data: its type, what it is an instance of, and its text.

    `text` says how much of `str(error)` counts: `full`, `first` or `last` line, `none`, or a phrase: whether it is
    in the text.
    """
    kinds = public_bases(type(error))
    answer: dict[str, Any] = {"raises": type_name(type(error)), "is": kinds}
    words = str(error)
    lines = words.strip().splitlines() or [""]
    if text == "full":
        answer["text"] = words
    elif text == "first":
        answer["text"] = lines[0]
    elif text == "last":
        answer["text"] = lines[-1]
    elif text != "none":
        answer[f"says {text!r}"] = text in words
    return answer


def outcome(call: Callable[[], Any], text: str = "full") -> Any:
    """What a call does: `{"raises": ...}` if it raises, else `{"returns": value}`."""
    try:
        value = call()
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, TimeLimitExceeded)):
            raise
        return error_answer(error, text)
    return {"returns": value}


def until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    """Waits for a condition; whether it came."""
    end = time.monotonic() + seconds
    while not (met := bool(condition())) and time.monotonic() < end:
        time.sleep(0.02)
    return met


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class TimeLimitExceeded(BaseException):
    """A program took too long; not an `Exception`, so that no program swallows it."""


def run_script(
    ray: Any, source: str, *arguments: str, env: dict[str, str] | None = None, timeout: float = 50
) -> dict[str, Any]:
    """Runs a program text as a script of its own; `ENGINE` in it stands for the module's name.

    Returns the exit `code`, the lines of stdout as `out` and the text of stderr as `err`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(textwrap.dedent(source).replace("ENGINE", ray.__name__))
        finished = subprocess.run(
            [sys.executable, str(path), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )
    return {"code": finished.returncode, "out": finished.stdout.splitlines(), "err": finished.stderr}


def script_lines(ray: Any, source: str, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
    """What a script prints to stdout; if it fails, its exit code and the last line of stderr as well."""
    finished = run_script(ray, source, *arguments, env=env)
    lines: list[str] = finished["out"]
    if finished["code"]:
        lines = [*lines, f"exit code {finished['code']}", *finished["err"].strip().splitlines()[-1:]]
    return lines
