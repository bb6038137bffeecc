"""The plugin for pytest: Ray programs under test run on miniray. It does nothing until it is asked.

    pytest --miniray                    `import ray` is miniray, for the whole run
    pytest --miniray-extensions         and what miniray has and Ray refuses is allowed
    pytest --miniray-local              everything in one process (local mode)
    pytest --miniray-leaks=error        a test that leaves something behind fails

Fixtures: `miniray_session`, one session for the run; `miniray_isolated`, one for the test; `miniray_init_options`, what
both are started with, to be overridden. Under ``--miniray``, or with one of the fixtures, what workers printed during a
test that fails is attached to its report, and ``pytest --cov`` measures tasks and actors.

Under pytest-xdist every worker of xdist is a process of its own, and so has sessions of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

_OPTIONS = (
    ("--miniray", "let `import ray` give miniray for the whole run"),
    ("--miniray-extensions", "as --miniray, and allow what miniray has and Ray refuses"),
    ("--miniray-local", "run tasks and actors in the test's own process (local mode)"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("miniray", "Ray programs on miniray")
    for name, text in _OPTIONS:
        group.addoption(name, action="store_true", default=False, help=text)
    group.addoption(
        "--miniray-leaks",
        choices=("off", "report", "error"),
        default=None,
        help="what tests leave behind: say nothing, list it at the end (the default under --miniray), or fail the test",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Install the alias before any conftest is imported."""
    _install(early_config.known_args_namespace)


def pytest_configure(config: pytest.Config) -> None:
    """Install the alias where no conftest was loaded early (workers of xdist), and register what watches the tests."""
    asked = _install(config.option)

    from miniray.testing.test_watch import TestWatch  # only a run of tests needs it

    leaks = config.getoption("--miniray-leaks") or ("report" if asked else "off")
    config.pluginmanager.register(TestWatch(config, leaks), "miniray-watch")


def _install(given: Any) -> bool:
    if getattr(given, "miniray_local", False):
        os.environ["MINIRAY_LOCAL_MODE"] = "1"
    extensions = getattr(given, "miniray_extensions", False)
    from miniray import compat

    if not (getattr(given, "miniray", False) or extensions):
        if compat.is_installed():
            compat.install()  # before the finder that pytest has put into ``sys.meta_path`` meanwhile
        return False
    try:
        compat.install(strict=False if extensions else None)
    except RuntimeError as error:
        raise pytest.UsageError(str(error))
    return True


@pytest.fixture(scope="session")
def miniray_init_options() -> dict[str, Any]:
    """Arguments of `init` for the two fixtures below. Override it in a conftest."""
    return {"num_cpus": 2}


@pytest.fixture(scope="session")
def _miniray_shared(miniray_init_options: dict[str, Any]) -> Iterator[Any]:
    from miniray.testing.shared_session import SharedSession

    shared = SharedSession(miniray_init_options)
    yield shared
    shared.end()


@pytest.fixture(scope="session")
def miniray_session(_miniray_shared: Any) -> Any:
    """The session that all tests of this run share; the value is what `init` returned.

    It starts with the first test that asks for it. After a test with `miniray_isolated` it is a new one.
    """
    return _miniray_shared.start()


@pytest.fixture
def miniray_isolated(_miniray_shared: Any) -> Iterator[Any]:
    """A session for this test alone; the value is what `init` returned."""
    yield _miniray_shared.interrupt()
    _miniray_shared.resume()
