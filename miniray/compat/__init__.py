"""Run Ray programs on miniray: ``import ray`` gives miniray.

Four ways, all the same in effect:

* ``miniray run script.py`` (or ``-m module``) instead of ``python script.py``;
* ``MINIRAY_AS_RAY=1`` in the environment, where miniray is installed;
* ``pytest --miniray``;
* ``miniray.compat.install()`` before anything imports ``ray``.

It holds in this process, in its workers, and in the processes that it starts. Under the alias miniray is strict: what
Ray refuses is refused, with Ray's error, so that a green run here means a green run on Ray.
"""

from __future__ import annotations

import os

from miniray import options
from miniray.system import import_alias

__all__ = ["install", "is_installed", "shim_folder", "uninstall"]

#: Before `install`: strict mode, and the variable ``MINIRAY_STRICT``.
_saved: tuple[bool, str | None] | None = None


def install(strict: bool | None = None) -> None:
    """Let ``import ray``, and of everything below it that miniray has, give miniray's modules, from now on.

    ``sys.modules["ray"] = None`` is respected: a program that plays without Ray finds none. Safe to call twice.

    Args:
        strict: refuse what Ray refuses. False: miniray's extensions work under the alias, too. None: what
            ``MINIRAY_STRICT`` says, else True.

    Raises:
        RuntimeError: the real Ray has been imported; the two are never mixed.
    """
    global _saved
    given = os.environ.get("MINIRAY_STRICT")
    before = options.strict_mode(), given  # of the variables as they are before the alias sets its own
    import_alias.install()
    if _saved is None:
        _saved = before
    if strict is None:
        options.set_strict_mode(options.means_yes(given or "1"))
    else:
        options.set_strict_mode(strict)
        os.environ["MINIRAY_STRICT"] = "1" if strict else "0"


def uninstall() -> None:
    """Undo `install`, for tests. Modules that have imported ``ray`` keep what they have."""
    global _saved
    import_alias.uninstall()
    if _saved is not None:
        strict, variable = _saved
        options.set_strict_mode(strict)
        os.environ.pop("MINIRAY_STRICT", None)
        if variable is not None:
            os.environ["MINIRAY_STRICT"] = variable
        _saved = None


def is_installed() -> bool:
    """Whether ``ray`` means miniray in this process."""
    return import_alias.is_installed()


def shim_folder() -> str:
    """A folder for ``PYTHONPATH`` in which ``ray`` is miniray, for programs that cannot be started any other way."""
    return import_alias.shim_folder()
