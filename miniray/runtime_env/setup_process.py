"""The set-up process of a runtime environment: fetches packages, makes virtual environments, asks plugins; then tells
the head how workers are started, and waits until that has heard it.

Descriptor 3 is a socket to the head: an `EnvironmentRequest` comes in, an `EnvironmentPlan` goes out. Its end of file
means that the head is gone, and ends this process with all that it has started. Standard output is its log.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import tempfile
import threading
import traceback
from typing import Any

import msgspec

from miniray.messages.startup import EnvironmentPlan, EnvironmentRequest
from miniray.processes import environment_plan
from miniray.system import virtual_environment
from miniray.system.environment_cache import CachedEnvironment
from miniray.system.package_store import PackageStore
from miniray.system.virtual_environment import SetUpError

#: seconds without a byte from a server
_DOWNLOAD_TIMEOUT = 60.0


def main() -> None:
    """The first thing in a set-up process."""
    connection = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    data = b""
    while not data.endswith(b"\n"):
        chunk = connection.recv(1 << 16)
        if not chunk:
            return
        data += chunk
    request = msgspec.json.decode(data, type=EnvironmentRequest)
    if request.as_ray:
        from miniray.system import import_alias  # only where `ray` is to mean miniray

        import_alias.install()
    threading.Thread(target=_end_with_head, args=(connection,), daemon=True).start()
    try:
        plan, cached = set_up(request)
    except SetUpError as error:
        plan = EnvironmentPlan(error=str(error))
    except Exception:
        plan = EnvironmentPlan(error=traceback.format_exc())
    if plan.error:
        print(plan.error, flush=True)
    connection.sendall(msgspec.json.encode(plan) + b"\n")
    threading.Event().wait()  # with the lock of the environment, until the head has one of its own


def _end_with_head(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass  # it has not read the plan
    os.killpg(0, signal.SIGKILL)


def set_up(request: EnvironmentRequest) -> tuple[EnvironmentPlan, CachedEnvironment | None]:
    """Make the environment. The second value is the virtual environment that is in use from now on, if there is one.

    Raises:
        SetUpError: it cannot be made.
    """
    fields: dict[str, Any] = msgspec.json.decode(request.runtime_env)
    store = PackageStore(request.session_dir)
    for uri, kind in environment_plan.packages_of(fields):
        if not store.has(uri, kind):
            _fetch(store, uri, kind)
    plan = environment_plan.plan_of(fields, store)
    cached = None
    for tool in ("pip", "uv"):
        if fields.get(tool):
            plan, cached = _with_packages(plan, tool, fields[tool], request.cache_dir)
    if fields.get("py_executable"):
        plan = msgspec.structs.replace(plan, command=str(fields["py_executable"]))
    if environment_plan.plugins_named():
        from miniray.runtime_env.plugin import ask_plugins  # few have any

        plan = ask_plugins(plan, fields)
    return plan, cached


def _with_packages(
    plan: EnvironmentPlan, tool: str, wanted: dict[str, Any], cache_dir: str
) -> tuple[EnvironmentPlan, CachedEnvironment]:
    directory = plan.working_dir or os.getcwd()
    cached = CachedEnvironment(cache_dir, virtual_environment.name_of(tool, wanted, directory))
    cached.take(lambda path: virtual_environment.make(path, tool, wanted, directory))
    variables = virtual_environment.variables_of(cached.path)
    if "PATH" in plan.env:
        variables["PATH"] = plan.env["PATH"].replace("${PATH}", variables["PATH"])
    return msgspec.structs.replace(
        plan,
        command=shlex.quote(virtual_environment.python_of(cached.path)),
        env={**variables, **plan.env, "PATH": variables["PATH"]},
        lock=cached.lock,
    ), cached


def _fetch(store: PackageStore, uri: str, kind: str) -> None:
    """Download a package and unpack it."""
    import urllib.request  # takes its time to import

    protocol = uri.partition("://")[0]
    if protocol == "gcs":
        raise SetUpError(
            f"Failed to download runtime_env file package {uri} from the GCS to the Ray worker node. The package is "
            "not, or no longer, in this session."
        )
    if protocol not in ("file", "http", "https"):
        raise SetUpError(
            f"{uri}: miniray fetches packages by file, http and https. Fetch it yourself and give its path to "
            "`init`, or run this program on Ray."
        )
    name = os.path.basename(uri.partition("?")[0])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        try:
            with urllib.request.urlopen(uri, timeout=_DOWNLOAD_TIMEOUT) as reader, open(path, "wb") as writer:
                shutil.copyfileobj(reader, writer)
            # A wheel is no folder that somebody has packed.
            store.unpack(path, uri, kind, strip=not uri.endswith(".whl"))
        except Exception as error:
            raise SetUpError(f"Failed to download {uri}: {type(error).__name__}: {error}") from error
