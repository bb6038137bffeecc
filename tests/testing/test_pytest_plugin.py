"""The plugin for pytest, in runs of pytest of their own: the alias, the fixtures, leaks, output, coverage."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import miniray
import miniray.compat

PARENT = str(Path(miniray.__file__).parents[1])
#: Where miniray is installed, its entry point loads the plugin.
LOADED = any(entry.name == "miniray" for entry in importlib.metadata.entry_points(group="pytest11"))


@pytest.fixture
def project(tmp_path):
    """Writes files, runs pytest on them."""

    class Project:
        path = tmp_path
        program = ("-m", "pytest")

        def write(self, **files):
            for name, text in files.items():
                (tmp_path / f"{name}.py").write_text(text)

        def pytest(self, *arguments, expect=0, **environment):
            plugin = [] if LOADED else ["-p", "miniray.testing.pytest_plugin"]
            done = subprocess.run(
                [sys.executable, *self.program, "-q", "-p", "no:cacheprovider", *plugin, *arguments],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=55,
                env={**os.environ, "PYTHONPATH": PARENT, **environment},
            )
            assert done.returncode == expect, done.stdout + done.stderr
            return done.stdout + done.stderr

    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return Project()


APP = """\
import ray


@ray.remote
def double(x):
    return 2 * x


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self, k):
        self.n += k
        return self.n

    def wait_for_ever(self, mark):
        import time
        while True:
            open(mark, "a").write("x")
            time.sleep(0.01)

    def never_called(self):
        return "not covered"
"""


def test_import_ray_is_miniray_also_in_the_conftest_and_nothing_happens_without_the_option(project):
    project.write(
        app=APP,
        conftest="import ray\nassert ray.__name__ == 'miniray'\n",
        test_app="""\
import pytest
import app, ray


def test_a_task(miniray_session):
    assert ray.get(app.double.remote(21)) == 42
    assert miniray_session.address_info["session_name"] == ray.get_runtime_context().get_session_name()


def test_the_session_is_shared(miniray_session):
    global shared
    shared = ray.get_runtime_context().get_session_name()


def test_one_of_its_own(miniray_isolated):
    assert ray.get_runtime_context().get_session_name() != shared


def test_strict_as_ray_is(miniray_session):
    with pytest.raises(TypeError):
        ray.remote(memory="1GiB")(len)
""",
    )
    assert "4 passed" in project.pytest("--miniray")
    said = "No module named 'ray'" if importlib.util.find_spec("ray") is None else "<module 'ray' from"
    assert said in project.pytest(expect=4)


def test_a_run_that_begins_under_the_alias_has_each_module_once(project):
    # As in a file of tests that imports ray and ends with pytest.main(): pytest's own finder is put before the alias,
    # and it takes all files that are named test_*.py.
    project.write(
        main="import sys, ray, pytest\nsys.exit(pytest.main(sys.argv[1:]))\n",
        test_once="""\
import miniray._private.test_utils as one
import ray._private.test_utils as other


def test_it():
    assert one is other
""",
    )
    project.program = [str(project.path / "main.py")]
    path = os.pathsep.join([miniray.compat.shim_folder(), PARENT])
    assert "1 passed" in project.pytest(MINIRAY_AS_RAY="1", PYTHONPATH=path)


def test_extensions_and_other_options_of_the_sessions(project):
    project.write(
        conftest="""\
import pytest


@pytest.fixture(scope="session")
def miniray_init_options():
    return {"num_cpus": 1, "namespace": "of the tests"}
""",
        test_it="""\
import ray


def test_it(miniray_session):
    assert ray.cluster_resources()["CPU"] == 1
    assert ray.get_runtime_context().namespace == "of the tests"
    assert ray.get(ray.remote(memory="1MiB")(lambda: 1).remote()) == 1
""",
    )
    assert "1 passed" in project.pytest("--miniray-extensions")


LEAKS = """\
import ray

kept = []


def test_clean(miniray_isolated):
    @ray.remote
    class A:
        def f(self):
            return 1
    a = A.remote()
    assert ray.get(a.f.remote()) == 1


def test_an_actor_and_an_object(miniray_session):
    @ray.remote
    class Stays:
        def f(self):
            return 1
    kept.append(Stays.options(name="who").remote())
    kept.append(ray.put(1))
    ray.get(kept[0].f.remote())


def test_a_session():
    ray.shutdown()
    ray.init(num_cpus=1)


def test_that_comes_last():
    pass
"""


def test_what_tests_leave_behind_is_listed_or_fails_them(project):
    project.write(test_leaks=LEAKS)
    out = project.pytest("--miniray")
    assert "4 passed" in out
    report = out[out.index("left behind by tests") :]
    assert "test_clean" not in report
    assert "actor Stays named 'who' is alive" in report
    assert "1 object still referred to in this process" in report
    assert "a session that runs on: call shutdown" in report
    out = project.pytest("--miniray", "--miniray-leaks=error", expect=1)
    assert "4 passed, 2 errors" in out
    assert "left behind" not in project.pytest("--miniray", "--miniray-leaks=off")


def test_a_test_may_end_the_head_of_its_session(project):
    project.write(
        test_head="""\
import os
import signal
import ray
from miniray.processes import current


def test_it(miniray_isolated):
    os.kill(current.core_or_none().session["head_pid"], signal.SIGKILL)
"""
    )
    out = project.pytest("--miniray", "--miniray-leaks=error")
    assert "1 passed" in out and "error" not in out


def test_output_of_workers_is_attached_to_the_test_that_fails(project):
    project.write(
        test_output="""\
import sys
import ray


@ray.remote
def says(text):
    print(text)
    print("to stderr", file=sys.stderr)


def test_passes(miniray_session):
    ray.get(says.remote("of the one that passes"))


def test_fails(miniray_session):
    ray.get(says.remote("of the one that fails"))
    assert False
"""
    )
    out = project.pytest("--miniray", expect=1)
    attached = out[out.index("miniray: output of workers during this test") :]
    assert "of the one that fails" in attached
    assert "to stderr" in attached
    assert "of the one that passes" not in attached


COVERED = """\
import os, time
import app, ray


def test_a_task(miniray_session):
    assert ray.get(app.double.remote(21)) == 42


def test_an_actor_that_is_killed(miniray_session):
    counter = app.Counter.remote()
    assert ray.get(counter.add.remote(1)) == 1
    ray.kill(counter)


def test_an_actor_that_is_killed_while_it_works(miniray_session, tmp_path):
    counter = app.Counter.remote()
    mark = str(tmp_path / "mark")
    counter.wait_for_ever.remote(mark)
    while not os.path.exists(mark) or os.path.getsize(mark) < 2:
        time.sleep(0.01)
    ray.kill(counter)
"""


def covered(project):
    done = subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", "-o", "-", "--data-file", str(project.path / ".coverage")],
        cwd=project.path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (data for name, data in json.loads(done.stdout)["files"].items() if name.endswith("app.py"))
    lines = APP.splitlines()
    return [lines[number - 1].strip() for number in found["missing_lines"]]


def test_plain_cov_measures_tasks_and_actors_that_are_killed(project):
    pytest.importorskip("pytest_cov")
    project.write(app=APP, test_covered=COVERED)
    out = project.pytest("--miniray", "--cov=app", "--cov-report=term-missing")
    assert "3 passed" in out
    assert covered(project) == ['return "not covered"']
    # And with the folder as the source, and branches.
    out = project.pytest("--miniray", "--cov=.", "--cov-branch")
    assert 'return "not covered"' in covered(project)
    assert len(covered(project)) <= 2


def test_the_end_of_the_session_saves_what_still_runs(project):
    pytest.importorskip("pytest_cov")
    project.write(
        app=APP,
        test_end="""\
import os, time
import app, ray


def test_it(miniray_isolated, tmp_path):
    ray.get(app.double.remote(1))
    counter = app.Counter.remote()
    ray.get(counter.add.remote(1))
    mark = str(tmp_path / "mark")
    counter.wait_for_ever.remote(mark)
    while not os.path.exists(mark) or os.path.getsize(mark) < 2:
        time.sleep(0.01)
""",
    )
    project.pytest("--miniray", "--cov=app")
    assert covered(project) == ['return "not covered"']


def test_local_mode_is_measured_too(project):
    pytest.importorskip("pytest_cov")
    project.write(app=APP, test_covered=COVERED)
    out = project.pytest("--miniray", "--miniray-local", "--cov=app", "-k", "not while_it_works")
    assert "2 passed" in out
    assert "return 2 * x" not in covered(project)


def test_under_xdist_each_process_has_its_session_and_is_measured(project):
    pytest.importorskip("xdist")
    pytest.importorskip("pytest_cov")
    project.write(app=APP, test_covered=COVERED)
    out = project.pytest("--miniray", "-n", "2", "--cov=app")
    assert "3 passed" in out
    assert covered(project) == ['return "not covered"']


def test_under_xdist_what_tests_leave_behind_is_listed_too(project):
    pytest.importorskip("xdist")
    project.write(test_leaks=LEAKS)
    out = project.pytest("--miniray", "-n", "1")
    assert "4 passed" in out
    report = out[out.index("left behind by tests") :]
    assert "test_clean" not in report
    assert "actor Stays named 'who' is alive" in report


def test_coroutines_await_refs_under_pytest_asyncio(project):
    pytest.importorskip("pytest_asyncio")
    project.write(
        app=APP,
        test_async="""\
import asyncio
import app, pytest, ray


@pytest.mark.asyncio
async def test_it(miniray_session):
    assert await app.double.remote(2) == 4
    assert await asyncio.gather(*(app.double.remote(i) for i in range(3))) == [0, 2, 4]
""",
    )
    assert "1 passed" in project.pytest("--miniray", "-o", "asyncio_default_fixture_loop_scope=function")


def test_the_real_ray_imported_first_is_a_usage_error(project):
    project.write(ray="", early="import ray\n")
    out = project.pytest("--miniray", "-p", "early", expect=4, PYTHONPATH=f"{project.path}:{PARENT}")
    assert "The real Ray is imported already" in out
