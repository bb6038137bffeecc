"""`import ray` gives miniray: a finder that answers for ``ray`` and all below it with miniray's own module objects.

One object under two names: `ray.exceptions` *is* `miniray.exceptions`, so that classes are the same under both, and a
pickle, which names ``miniray.*``, can be read in a process without the alias. `miniray.compat` is the way in for users;
workers are told by their driver's job.

How it works. ``sys.meta_path`` is asked for ``ray.x``; the loader imports ``miniray.x`` and hands that module over. The
import system then writes the alias's spec into the module; it is put back at once. Subprocesses get two environment
variables: ``MINIRAY_AS_RAY``, and a ``PYTHONPATH`` that begins with the folder ``compat/shim``, whose package ``ray``
does nothing but install this finder. The folder is in this process's own ``sys.path``, too: `multiprocessing` gives
that to the processes that it spawns, in place of theirs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from miniray.absent_parts import why_absent
from miniray.system import uncaught_errors

VARIABLE = "MINIRAY_AS_RAY"
NAME = "ray"
_PACKAGE = __name__.partition(".")[0]

#: The release of Ray that miniray is held against; what ``ray.__version__`` says under the alias.
RAY_VERSION = "2.60.0"

_SHIM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "compat", "shim")


class _Loader:
    """Hands over one module of miniray, under the name of Ray's."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._spec: Any = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._target)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class AliasFinder:
    """The entry of ``sys.meta_path``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of `fullname` if that is ``ray`` or below it; else None.

        Raises:
            ModuleNotFoundError: miniray does not have it, and here is why.
        """
        package, _, rest = fullname.partition(".")
        if package == _PACKAGE and rest:
            # ``from ray import data`` asks for miniray.data, since that is the name of the module it came from.
            if path is not None and (sentence := why_absent(rest)) and _is_being_imported():
                raise ModuleNotFoundError(sentence, name=f"{NAME}.{rest}")
            return None
        if package != NAME:
            return None
        name = f"{_PACKAGE}.{rest}" if rest else _PACKAGE
        found = _spec_of(name)
        if found is None:
            sentence = why_absent(rest)
            if sentence and _is_being_imported():
                raise ModuleNotFoundError(sentence, name=fullname)
            return None
        spec = ModuleSpec(fullname, _Loader(name), origin=found.origin)  # type: ignore[arg-type]
        spec.submodule_search_locations = found.submodule_search_locations
        return spec


def _spec_of(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None


def _is_being_imported() -> bool:
    """Whether the import statement asks. `importlib.util.find_spec` wants to hear None about what is not there."""
    # Above this: `AliasFinder.find_spec`, importlib's `_find_spec`, and who called that.
    return sys._getframe(3).f_code.co_name == "_find_and_load_unlocked"


_finder: AliasFinder | None = None
_saved: dict[str, Any] = {}


def is_installed() -> bool:
    """Whether ``ray`` means miniray in this process."""
    return _finder is not None


def install() -> None:
    """Let ``import ray`` give miniray from now on, here and in the processes that this one starts.

    ``sys.modules["ray"] = None`` stays: a program that plays without Ray finds none. Once more: its finder comes before
    all others again.

    Raises:
        RuntimeError: the real Ray has been imported.
    """
    global _finder
    if _finder is not None:
        # Another finder (pytest's) may have come before it since then. That would load miniray's files a second time,
        # as modules of their own.
        sys.meta_path[:] = [_finder, *(finder for finder in sys.meta_path if finder is not _finder)]
        sys.modules[_PACKAGE].__version__ = RAY_VERSION  # type: ignore[attr-defined]  # `reload` writes the package's own
        return
    check_no_real_ray()
    package = sys.modules[_PACKAGE]
    _finder = AliasFinder()
    sys.meta_path.insert(0, _finder)
    uncaught_errors.install(NAME)
    importlib.invalidate_caches()
    # The shim may have been found before: this process was started with it, and it calls this function.
    if NAME not in sys.modules or sys.modules[NAME] is not None:
        sys.modules[NAME] = package
    path = os.environ.get("PYTHONPATH")
    _saved.update(version=package.__version__, path=path, variable=os.environ.get(VARIABLE))
    package.__version__ = RAY_VERSION  # type: ignore[attr-defined]
    os.environ[VARIABLE] = "1"
    entries = path.split(os.pathsep) if path else []
    if _SHIM not in entries:
        os.environ["PYTHONPATH"] = os.pathsep.join([_SHIM, *entries])
    _saved["on_path"] = _SHIM in sys.path
    if not _saved["on_path"]:
        sys.path.insert(1, _SHIM)  # after the program's own folder, as ``PYTHONPATH`` has it


def uninstall() -> None:
    """Undo `install`. Modules that have imported ``ray`` keep what they have."""
    global _finder
    if _finder is None:
        return
    sys.meta_path.remove(_finder)
    uncaught_errors.uninstall()
    _finder = None
    for name, module in list(sys.modules.items()):
        if (name == NAME or name.startswith(NAME + ".")) and module is not None:
            del sys.modules[name]
    if not _saved["on_path"] and _SHIM in sys.path:
        sys.path.remove(_SHIM)
    sys.modules[_PACKAGE].__version__ = _saved["version"]  # type: ignore[attr-defined]
    for variable, value in (("PYTHONPATH", _saved["path"]), (VARIABLE, _saved["variable"])):
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


def check_no_real_ray() -> None:
    """Raise RuntimeError if this process has imported the real Ray."""
    module = sys.modules.get(NAME)
    if module is None or module is sys.modules[_PACKAGE]:
        return
    file = os.path.abspath(getattr(module, "__file__", None) or "")
    if not file.startswith(_SHIM + os.sep):
        raise RuntimeError(
            f"The real Ray is imported already (from {file}), and the two cannot be mixed: install the alias before "
            "anything imports ray, or start the program with `miniray run`."
        )


def shim_folder() -> str:
    """The folder for ``PYTHONPATH`` whose package ``ray`` installs the alias."""
    return _SHIM
