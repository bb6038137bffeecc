"""What every test has: a private place for its sessions, the leak check, and sessions as fixtures."""

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import leaks

# The same examples in every run, and no time limit per example: a slow machine is no failure.
# To search with fresh ones: HYPOTHESIS_PROFILE=search.
settings.register_profile("suite", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

ADDRESS_VARIABLES = ("RAY_ADDRESS", "MINIRAY_ADDRESS")
#: Folders of tests that start no session, or do not care how its processes start and talk.
SAME_ON_THE_FALLBACK = {"state_machines", "docs", "benchmarks"}


def pytest_configure(config: pytest.Config) -> None:
    import miniray

    package = Path(miniray.__file__).resolve().parent
    if os.environ.get("MINIRAY_TEST_INSTALLED") and "site-packages" not in package.parts:
        raise pytest.UsageError(f"these tests are for the installed miniray, but {package} would be imported")
    if "site-packages" not in package.parts:
        # Programs that tests start import the same miniray, also where it is not installed.
        paths = [str(package.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    # Processes of this run are known by the first; no session outside of this run is ever met, thanks to the second.
    # It stays short: the path of a socket may have 107 bytes.
    os.environ[leaks.RUN_VARIABLE] = f"{os.getpid()}-{secrets.token_hex(4)}"
    os.environ[leaks.ROOT_VARIABLE] = tempfile.mkdtemp(prefix="mrt-", dir="/tmp" if sys.platform != "win32" else None)
    for name in ADDRESS_VARIABLES:
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it runs in the background so, and every program of the tests would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    root = os.environ.pop(leaks.ROOT_VARIABLE, None)
    if root and Path(root).name.startswith("mrt-"):
        shutil.rmtree(root, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "differential" in item.path.parts:
            item.add_marker(pytest.mark.differential)
        if not SAME_ON_THE_FALLBACK.intersection(item.path.parts):
            item.add_marker(pytest.mark.spawn)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    """After each module: no process, thread, file descriptor, shared memory or session more than before it."""
    before = leaks.Snapshot.take()
    yield
    left = leaks.wait_until_clean(before)
    if left:
        leaks.end(set(leaks.processes_of_this_run()) - set(before.processes))
        pytest.fail("left over by this module:\n  " + "\n  ".join(left), pytrace=False)


@contextlib.contextmanager
def _session(**options: Any) -> Iterator[Any]:
    import miniray

    context = miniray.init("local", **{"num_cpus": 2, **options})
    try:
        yield context
    finally:
        miniray.shutdown()


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """A session with two CPUs for all tests of a module; the value is what `init` returned."""
    with _session() as context:
        yield context


@pytest.fixture
def fresh_session() -> Iterator[Any]:
    """A session with two CPUs for one test; the value is what `init` returned."""
    with _session() as context:
        yield context
