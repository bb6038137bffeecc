"""What a driver takes along for its job: copies of the directories of `working_dir` and `py_modules`, and the hook that
its workers call first.

Each package gets a URI with the hash of its contents; `RuntimeEnv` names that from then on.

Source: https://docs.ray.io/en/latest/ray-core/handling-dependencies.html
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from miniray.exceptions import RuntimeEnvSetupError
from miniray.processes.setup_hook import HOOK_VARIABLE, save_hook
from miniray.runtime_env.fields import WORKING_DIR_SUFFIXES, protocol_of
from miniray.runtime_env.runtime_env import RuntimeEnv
from miniray.state_machines.ignore_rules import IgnoreRules
from miniray.system import user_log
from miniray.system.package_store import PackageStore, PackageTooLargeError
from miniray.system.serialization import pickle_function

#: folders that stay behind unless ``RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES`` names others (Ray's list)
DEFAULT_EXCLUDES = (".git", ".venv", "venv", "__pycache__")
#: bytes of a package, and of a file that is warned about (Ray's numbers)
MAX_SIZE = 512 << 20
WARN_SIZE = 10 << 20


def job_environment(given: dict[str, Any]) -> RuntimeEnv:
    """The runtime environment of a job, checked; modules stand for the folders that they come from.

    Raises:
        TypeError, ValueError: as `RuntimeEnv`, and for what only a job may have, in Ray's words.
    """
    given = {name: value for name, value in given.items() if value is not None}
    hook = given.get("worker_process_setup_hook")
    if hook is not None and not callable(hook) and not isinstance(hook, str):
        raise TypeError(f"worker_process_setup_hook must be a function, got {type(hook)}.")
    modules = given.get("py_modules")
    if modules is not None:
        if not isinstance(modules, list):
            raise TypeError(
                f"py_modules must be a List of local paths, imported modules, or URIs, got {type(modules)}."
            )
        given["py_modules"] = [_place_of(module) for module in modules]
    working_dir = given.get("working_dir")
    if working_dir is not None:
        if not isinstance(working_dir, (str, Path)):
            raise TypeError(
                f"working_dir must be a string or Path (either a local path or remote URI), got {type(working_dir)}."
            )
        working_dir = given["working_dir"] = os.path.expanduser(working_dir)
        if not protocol_of(working_dir) and not _is_packable(working_dir):
            raise ValueError(
                f"directory {working_dir} must be an existing directory or a supported archive "
                f"({', '.join(WORKING_DIR_SUFFIXES)})"
            )
    return RuntimeEnv(**given)


def _is_packable(path: str) -> bool:
    return os.path.isdir(path) or (os.path.isfile(path) and path.endswith(WORKING_DIR_SUFFIXES))


def _place_of(module: Any) -> str:
    if isinstance(module, Path):
        return str(module)
    if not isinstance(module, ModuleType):
        if not isinstance(module, str):
            raise TypeError(f"py_modules must be a list of file paths, URIs, or imported modules, got {type(module)}.")
        return module
    path = list(getattr(module, "__path__", ()))
    if len(path) > 1:
        raise ValueError("py_modules only supports modules whose __path__ has length 1 or those who are single-file.")
    return path[0] if path else str(module.__file__)


def take_along(env: RuntimeEnv, session_dir: str) -> RuntimeEnv:
    """The environment with URIs in the place of local paths, which are copied into the session.

    Raises:
        ValueError: what is to be taken along is neither a directory nor an archive.
        RuntimeEnvSetupError: it is too large, or cannot be read.
    """
    hook = env.get("worker_process_setup_hook")
    if hook is not None:
        env["worker_process_setup_hook"] = getattr(hook, "__qualname__", hook)
        env["env_vars"] = {**env.env_vars(), HOOK_VARIABLE: _hook(hook, session_dir)}
    excludes = env.pop("excludes", None) or []
    if not env.get("working_dir") and not env.get("py_modules"):
        return env
    store = PackageStore(session_dir)
    modules = env.get("py_modules")
    if modules:
        env["py_modules"] = [module if protocol_of(module) else _module(store, module, excludes) for module in modules]
    working_dir = env.get("working_dir")
    if working_dir and not protocol_of(working_dir):
        env["working_dir"] = _add(store, working_dir, "working_dir", excludes, "", "working_dir")
    return env


def _module(store: PackageStore, path: str, excludes: list[str]) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    is_wheel = path.endswith(".whl")
    if not is_wheel and not os.path.isdir(path) and not path.endswith(".py"):
        raise ValueError(f"{path} is neither a directory, nor a .py file, nor a .whl file")
    inside = os.path.basename(path) if os.path.isdir(path) else ""
    return _add(store, path, "py_modules", excludes, inside, "module")


def _add(store: PackageStore, path: str, kind: str, excludes: list[str], inside: str, what: str) -> str:
    try:
        if os.path.isfile(path) and not path.endswith(".py"):
            return store.add_archive(path, kind)[0]
        rules = ExclusionRules(path, excludes)
        return store.add_directory(path, kind, excluded=rules, inside=inside, limit=MAX_SIZE)[0]
    except PackageTooLargeError as error:
        raise RuntimeEnvSetupError(
            f"Failed to upload {what} {path} to the Ray cluster: Package size ({error.size / (1 << 20):.2f}MiB) "
            f"exceeds the maximum size of {MAX_SIZE / (1 << 20):.2f}MiB. To exclude large files, add them to "
            "'.gitignore' or '.rayignore' files, or use the 'excludes' option in the runtime_env, or provide a URI of "
            "a remote zip file."
        ) from None
    except Exception as error:  # no two kinds of archives fail alike
        raise RuntimeEnvSetupError(f"Failed to upload {what} {path} to the Ray cluster: {error}") from error


def _hook(hook: Any, session_dir: str) -> str:
    if isinstance(hook, str):
        return hook
    try:
        pickled = pickle_function(hook, lambda: "the worker_process_setup_hook")
    except Exception as error:
        raise RuntimeEnvSetupError("Failed to export the setup function.") from error
    return save_hook(session_dir, pickled)


class ExclusionRules:
    """What of a directory stays behind: by default, by the list that was given, and by the ignore files in it.

    Called with a path below the directory and whether it is a folder, from the top down.
    """

    def __init__(self, directory: str, excludes: Iterable[str]) -> None:
        self._directory = directory
        self._given = IgnoreRules(excludes)
        named = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES")
        names = DEFAULT_EXCLUDES if named is None else tuple(filter(None, map(str.strip, named.split(","))))
        self._default = IgnoreRules(names)
        ignoring = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") in ("1", "true")
        self._files = (".rayignore",) if ignoring else (".gitignore", ".rayignore")
        self._rules: dict[str, list[IgnoreRules]] = {}

    def __call__(self, path: str, is_folder: bool) -> bool:
        if self._given.verdict(path, is_folder) or self._default.verdict(path, is_folder):
            return True
        parts = path.split("/")
        for rules_of in range(2):
            verdict = None
            # The nearest file decides.
            for depth in range(len(parts) - 1, -1, -1):
                found = self._in_folder("/".join(parts[:depth]))[rules_of]
                verdict = found.verdict("/".join(parts[depth:]), is_folder)
                if verdict is not None:
                    break
            if verdict:
                return True
        if not is_folder:
            self._warn(path)
        return False

    def _in_folder(self, folder: str) -> list[IgnoreRules]:
        rules = self._rules.get(folder)
        if rules is None:
            rules = self._rules[folder] = []
            for name in (".gitignore", ".rayignore"):
                lines: list[str] = []
                if name in self._files:
                    try:
                        with open(os.path.join(self._directory, folder, name), encoding="utf-8") as file:
                            lines = file.read().splitlines()
                    except OSError:
                        pass
                rules.append(IgnoreRules(lines))
        return rules

    def _warn(self, path: str) -> None:
        size = os.stat(os.path.join(self._directory, path)).st_size
        if size >= WARN_SIZE:
            name = os.path.join(self._directory, path)
            user_log.say(
                user_log.WARNING,
                f"File {name} is very large ({size / (1 << 20):.2f}MiB). Consider adding this file to the 'excludes' "
                f"list to skip uploading it: `ray.init(..., runtime_env={{'excludes': ['{name}']}})`",
            )
