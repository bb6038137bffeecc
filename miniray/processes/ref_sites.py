"""Where refs were made: recorded when RAY_record_ref_creation_sites=1, for ``miniray memory`` and error texts.

It costs a walk over the stack for each ref, so it is off by default, and asks nothing of the hot path but one look at a
flag. The texts are Ray's: what made the ref, then the frames of the user's code, the innermost first.
"""

from __future__ import annotations

import os
import sys

from miniray.processes import current

#: Frames that are written down for one ref.
FRAMES = 4
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def enabled() -> bool:
    """What the environment says."""
    value = os.environ.get("RAY_record_ref_creation_sites", "")  # noqa: SIM112 - Ray's name
    return value.lower() in ("1", "true")


def made_by(what: str) -> str:
    """The present place in the user's code, for a ref that `what` made: "put object", "task call", "actor call"."""
    return f"({what}) " + "".join(f" | {frame}" for frame in _frames())


def received() -> str:
    """For a ref that came inside an argument, or inside another object."""
    context = current.task_context.get()
    if context is None:
        return "(deserialize object) " + "".join(f" | {frame}" for frame in _frames())
    kind = "task arg" if context.actor_id is None else "actor task arg"
    return f"(deserialize {kind}) {context.function_name}"


def _frames() -> list[str]:
    found: list[str] = []
    frame = sys._getframe(2)
    while frame is not None and len(found) < FRAMES:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            found.append(f"{code.co_filename}:{code.co_name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return found
