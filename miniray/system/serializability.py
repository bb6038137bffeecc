"""Find out why a value cannot be pickled: the report that stands in the error, and in ``inspect_serializability``.

The report, its words and the order of its search are Ray's (``ray.util.inspect_serializability``), since programs and
people read it. The search goes from the failing object to what it is made of, and tries to pickle each part alone:

* of a function, the globals and the nonlocals that its code names;
* of anything else, first the members that are functions, then those that are neither special nor built in;
* each of these searches stops once a culprit is known; and at ``depth`` what fails is called a culprit itself.

Kept apart from the pickler: it is imported when something has failed, and only then.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from io import BytesIO
from typing import Any, TextIO

from miniray.system.pickler import Pickler

_FUNCTION_HINT = (
    " on which object causes the failure. Try calling `ray.util.inspect_serializability` directly on the suspected "
    "object, or simplify the closure to isolate the cause."
)
_INSTANCE_HINT = ". Try calling `ray.util.inspect_serializability` on individual attributes to isolate the cause."
_ADVICE = (
    "was found to be non-serializable. There may be multiple other undetected variables that were non-serializable. \n"
    "Consider either removing the instantiation/imports of these variables or moving the instantiation into the scope "
    "of the function/class. "
)
_LINKS = (
    "Check https://docs.ray.io/en/master/ray-core/objects/serialization.html#troubleshooting for more information.\n"
    "If you have any suggestions on how to improve this error message, please reach out to the Ray developers on "
    "github.com/ray-project/ray/issues/"
)


class FailureTuple:
    """What cannot be pickled: ``obj``, the names that lead to it (``path``), and what holds it (``parent``)."""

    def __init__(self, obj: Any, path: tuple[str, ...], parent: Any) -> None:
        self.obj = obj
        self.path = path
        self.parent = parent

    def __repr__(self) -> str:
        name = self.path[-1] if self.path else "unknown"
        return f"FailTuple({name} [path={' -> '.join(self.path)}, obj={self.obj}, parent={self.parent}])"


class _Search:
    """One search: where it writes, and what it found."""

    def __init__(self, file: TextIO | None) -> None:
        self.file = file
        self.failures: list[FailureTuple] = []

    def write(self, level: int, text: str) -> None:
        print("    " * level + text, file=self.file)

    def color(self, text: str, start: int, end: int) -> str:
        """Colored as in Ray: always in a file that was given, on standard output only when that is a terminal."""
        if self.file is None and not (sys.stdout is not None and sys.stdout.isatty()):
            return text
        return f"\x1b[{start}m{text}\x1b[{end}m"

    def inspect(self, obj: Any, path: tuple[str, ...], parent: Any, depth: int, level: int) -> bool:
        """Whether ``obj`` can be pickled; if not, the failures grow."""
        try:
            Pickler(BytesIO(), 5, contained=[]).dump(obj)
            return True
        except Exception as error:
            self.write(level, f"{self.color('!!! FAIL', 31, 39)} serialization: {error}")
        if depth <= 0:
            self.failures.append(FailureTuple(obj, path, parent))
        elif not (self._function if inspect.isfunction(obj) else self._instance)(obj, path, depth, level):
            if inspect.isfunction(obj):
                name, hint = obj.__name__, _FUNCTION_HINT
            else:
                name, hint = f"{type(obj).__name__} instance", _INSTANCE_HINT
            self.write(
                level,
                f"WARNING: Did not find non-serializable object in {name}. This may be because the object is only "
                f"non-serializable when combined with other objects, or because cloudpickle and the traversal "
                f"disagree{hint}",
            )
            if not self.failures:
                self.failures.append(FailureTuple(obj, path, parent))
        return False

    def _parts(self, obj: Any, parts: Iterable[tuple[str, Any]], path: tuple[str, ...], depth: int, level: int) -> bool:
        """Whether a culprit was found among the parts of ``obj``."""
        found = False
        for name, part in parts:
            self.write(level + 1, f"Serializing '{name}' {part}...")
            found |= not self.inspect(part, (*path, name), obj, depth - 1, level + 1)
            if self.failures:
                break
        return found

    def _function(self, obj: Any, path: tuple[str, ...], depth: int, level: int) -> bool:
        self.write(level, f"Inspecting closure of '{obj.__qualname__}':")
        closure = inspect.getclosurevars(obj)
        found = False
        for kind, variables in (("global", closure.globals), ("nonlocal", closure.nonlocals)):
            if variables:
                self.write(level, f"Detected {len(variables)} {kind} variables. Checking serializability...")
                found |= self._parts(obj, variables.items(), path, depth, level)
        return found

    def _instance(self, obj: Any, path: tuple[str, ...], depth: int, level: int) -> bool:
        found = self._parts(obj, inspect.getmembers(obj, inspect.isfunction), path, depth, level)
        others = [
            (name, member)
            for name, member in inspect.getmembers(obj)
            if not (name.startswith("__") and name.endswith("__")) and not inspect.isbuiltin(member)
        ]
        return self._parts(obj, others, path, depth, level) or found


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: Any | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Say whether an object can be pickled, and print which parts of it, or of its closure, cannot.

    ``name`` stands first in the reported paths. ``depth``: how many layers of parts are searched. ``print_file``: where
    the report goes, instead of standard output. Returns whether it can be pickled, and the culprits found.

    As https://docs.ray.io/en/latest/ray-core/objects/serialization.html#troubleshooting.
    """
    search = _Search(print_file)
    title = f"Checking Serializability of {base_obj}"
    rule = "=" * min(len(title), 80)
    search.write(0, f"{rule}\n{title}\n{rule}")
    if search.inspect(base_obj, () if name is None else (name,), None, depth, 0):
        return True, set()
    if depth > 0:
        culprits = "\n".join(search.color(str(failure), 1, 0) for failure in search.failures)
        search.write(0, f"{rule}\nVariable: \n\n\t{culprits}\n\n{_ADVICE}\n{rule}\n{_LINKS}\n{rule}")
    return False, set(search.failures)
