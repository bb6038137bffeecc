"""Virtual environments for the fields `pip` and `uv`: what is in one, and how it is made.

One sees the packages of the Python that runs here as well, behind its own, and thereby miniray. ``venv`` alone gives
that only for a Python that is in no virtual environment itself; so a ``.pth`` file adds the places of this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from typing import Any

#: of the output of a tool that failed, in its error
_LINES = 50


class SetUpError(Exception):
    """The environment cannot be made; the text says why."""


def name_of(tool: str, wanted: dict[str, Any], directory: str) -> str:
    """The name of an environment: equal for equal contents.

    Args:
        tool: "pip" or "uv".
        wanted: the field of the runtime environment.
        directory: where the tool runs.
    """
    files = []
    for line in wanted["packages"]:
        path = line.strip().partition(" @ file://")[2] or line.strip()
        try:
            status = os.stat(os.path.join(directory, path))
        except (OSError, ValueError):
            continue
        # A file that is built anew is other contents.
        files.append([path, status.st_size, status.st_mtime_ns])
    contents = [tool, wanted, files, sys.executable, sys.version, _places(), directory if files else ""]
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:32]


def python_of(path: str) -> str:
    """The interpreter of the environment in this directory."""
    return os.path.join(path, "bin", "python")


def variables_of(path: str) -> dict[str, str]:
    """What an activated environment has in its environment variables."""
    return {"VIRTUAL_ENV": path, "PATH": os.path.join(path, "bin") + os.pathsep + "${PATH}"}


def make(path: str, tool: str, wanted: dict[str, Any], directory: str) -> None:
    """Make the environment in `path`.

    Args:
        directory: where the tool runs, for relative paths in requirements.

    Raises:
        SetUpError: with the end of the tool's output.
    """
    import venv  # takes its time to import, and few need it

    os.makedirs(path)
    venv.EnvBuilder(system_site_packages=True, symlinks=True).create(path)
    with open(os.path.join(_site_of(path), "_miniray_parent.pth"), "w", encoding="utf-8") as file:
        for place in _places():
            file.write(f"import site; site.addsitedir({place!r})\n")
    requirements = os.path.join(path, "requirements.txt")
    with open(requirements, "w", encoding="utf-8") as file:
        file.write("\n".join(wanted["packages"]) + "\n")
    python = python_of(path)
    if tool == "pip":
        pip = _pip(path, wanted.get("pip_version", ""), directory)
        options = wanted.get("pip_install_options") or ["--disable-pip-version-check"]
        _run([*pip, "install", "-r", requirements, *options], path, directory)
        if wanted.get("pip_check"):
            _run([*pip, "check"], path, directory)
        return
    uv = _uv(path, wanted.get("uv_version", ""), directory)
    options = wanted.get("uv_pip_install_options") or []
    _run([*uv, "pip", "install", "--python", python, "-r", requirements, *options], path, directory)
    if wanted.get("uv_check"):
        _run([*uv, "pip", "check", "--python", python], path, directory)


def _places() -> list[str]:
    """Where this Python finds packages."""
    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    places = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []), package_parent]
    return [place for place in dict.fromkeys(places) if os.path.isdir(place)]


def _site_of(path: str) -> str:
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"  # before 3.11
    return sysconfig.get_path("purelib", scheme, {"base": path})


def _pip(path: str, version: str, directory: str) -> list[str]:
    """A pip that installs into the environment: the one that this Python has, unless another version is wanted."""
    python = python_of(path)
    here = [sys.executable, "-m", "pip", "--python", python]
    found = subprocess.run([*here, "--version"], capture_output=True, check=False).returncode == 0
    if found and not version:
        return here
    if not found:
        _run([python, "-m", "ensurepip", "--default-pip"], path, directory)
        here = [python, "-m", "pip"]
    if version:
        _run([*here, "install", "--ignore-installed", f"pip{version}"], path, directory)
    return [python, "-m", "pip"]


def _uv(path: str, version: str, directory: str) -> list[str]:
    found = shutil.which("uv")
    if found and not version:
        return [found]
    _run([*_pip(path, "", directory), "install", f"uv{version}"], path, directory)
    return [os.path.join(path, "bin", "uv")]


def _run(command: list[str], path: str, directory: str) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": path, "RAY_RUNTIME_ENV_CREATE_WORKING_DIR": directory}
    environment.pop("PYTHONPATH", None)  # it would count as installed
    print("$", shlex.join(command), flush=True)
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise SetUpError(f"Command '{command}' cannot be run: {error}") from error
    print(done.stdout, flush=True)
    if done.returncode:
        lines = "\n".join("    " + line for line in done.stdout.splitlines()[-_LINES:])
        raise SetUpError(
            f"Run cmd failed with the following details.\nCommand '{command}' returned non-zero exit status "
            f"{done.returncode}.\nLast {_LINES} lines of stdout:\n{lines}"
        )
