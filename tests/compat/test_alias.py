"""`import ray` is miniray: in one process, in its workers, in what it starts; and what is said about what is absent."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import miniray
from miniray import compat, options
from miniray.absent_parts import ABSENT_PARTS

PARENT = str(Path(miniray.__file__).parents[1])


def python(*arguments, check=True, stdin=None, **environment):
    """Run an interpreter of which nobody has told that `ray` is miniray, unless `environment` does."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MINIRAY_AS_RAY")}
    done = subprocess.run(
        [sys.executable, *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        env={**inherited, "PYTHONPATH": PARENT, **environment},
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def program(text, **environment):
    return python("-c", textwrap.dedent(text), **environment).stdout


@pytest.fixture
def alias():
    compat.install()
    try:
        yield
    finally:
        compat.uninstall()


def test_both_names_are_one_module(alias):
    import ray
    import ray.util.queue
    from ray.exceptions import RayTaskError

    assert ray is miniray
    assert ray.util.queue is miniray.util.queue
    assert sys.modules["ray.util.queue"] is sys.modules["miniray.util.queue"]
    assert RayTaskError is miniray.exceptions.RayTaskError
    assert ray.util.queue.__spec__.name == "miniray.util.queue"


def test_a_reloaded_package_keeps_rays_version():
    code = "import ray, importlib; before = ray.__version__; print(importlib.reload(ray).__version__ == before)"
    assert program(code, MINIRAY_AS_RAY="1", PYTHONPATH=f"{compat.shim_folder()}:{PARENT}") == "True\n"


def test_after_uninstall_the_name_is_free_again():
    before = dict(os.environ), miniray.__version__, [*sys.path], [*sys.meta_path]
    compat.install()
    compat.install()
    import ray  # noqa: F401

    assert compat.is_installed()
    compat.uninstall()
    compat.uninstall()
    assert not compat.is_installed()
    assert "ray" not in sys.modules
    assert (dict(os.environ), miniray.__version__, sys.path, sys.meta_path) == before


def test_after_uninstall_the_next_install_is_as_strict_as_the_first(monkeypatch):
    monkeypatch.delenv("MINIRAY_STRICT", raising=False)
    for strict, found in ((False, False), (None, True), (True, True)):
        compat.install(strict=strict)
        try:
            assert options.strict_mode() is found
        finally:
            compat.uninstall()
        assert "MINIRAY_STRICT" not in os.environ
        assert not options.strict_mode()


@pytest.mark.parametrize("name", ["data", "tune", "serve", "train", "rllib", "util.collective"])
def test_what_is_absent_says_so_in_one_sentence(alias, name):
    sentence = rf"^miniray has no ray\.{name} \(.*\): run this program on the real Ray, `pip install ray`\.$"
    with pytest.raises(ImportError, match=sentence):
        __import__(f"ray.{name}")
    with pytest.raises(ImportError, match=sentence):
        __import__(f"ray.{name}.deep.inside")
    package, _, child = f"ray.{name}".rpartition(".")
    with pytest.raises(ImportError, match=sentence):
        exec(f"from {package} import {child}", {})


def test_a_probe_for_an_absent_part_finds_nothing(alias):
    from importlib.util import find_spec

    assert find_spec("ray") is not None
    assert find_spec("ray.tune") is None
    assert find_spec("ray.util.queue") is not None
    assert not hasattr(miniray, "tune")
    with pytest.raises(AttributeError, match="miniray has no ray.tune"):
        miniray.tune


def test_what_neither_has_is_an_ordinary_import_error(alias):
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'ray.no_such'$"):
        __import__("ray.no_such")
    with pytest.raises(ImportError, match="cannot import name 'no_such'"):
        exec("from ray import no_such", {})


def test_every_absent_part_is_absent():
    from importlib.util import find_spec

    for name in ABSENT_PARTS:
        parent = f"miniray.{name}".rpartition(".")[0]
        assert find_spec(parent) is None or find_spec(f"miniray.{name}") is None, name


def test_a_name_patched_in_the_users_module_is_the_name_that_runs(alias):
    from types import ModuleType
    from unittest import mock

    app = ModuleType("app_with_ray")
    exec("import ray\ndef fetch(ref):\n    return ray.get(ref)\ndef end(a):\n    ray.kill(a)", app.__dict__)
    sys.modules["app_with_ray"] = app
    try:
        with mock.patch("app_with_ray.ray.get", return_value=7), mock.patch("ray.kill") as kill:
            assert app.fetch("nothing") == 7
            app.end("someone")
            kill.assert_called_once_with("someone")
    finally:
        del sys.modules["app_with_ray"]
    assert miniray.get is not None and callable(miniray.kill)
    assert miniray.get.__module__ == "miniray.api"


def test_the_alias_is_strict_unless_told_otherwise():
    text = """
    import miniray.compat
    miniray.compat.install({})
    import ray
    try:
        ray.init("local", num_cpus=1, object_store_memory="100MiB")
        print("accepted")
    except TypeError as error:
        print("refused")
    """
    assert program(text.format("")) == "refused\n"
    assert program(text.format("strict=False")) == "accepted\n"
    assert program(text.format(""), MINIRAY_STRICT="0") == "accepted\n"


def test_sys_modules_none_hides_ray():
    out = program("""
    import sys
    sys.modules["ray"] = None
    import miniray.compat
    miniray.compat.install()
    try:
        import ray
    except ImportError as error:
        print(type(error).__name__)
    """)
    assert out == "ModuleNotFoundError\n"


def test_the_real_ray_is_never_mixed_with_the_alias(tmp_path):
    (tmp_path / "ray.py").write_text("")
    done = python(
        "-c", "import ray, miniray.compat; miniray.compat.install()", check=False, PYTHONPATH=f"{tmp_path}:{PARENT}"
    )
    assert done.returncode == 1
    assert "RuntimeError: The real Ray is imported already" in done.stderr


def test_workers_and_subprocesses_have_the_alias_and_pickles_name_miniray():
    out = program("""
    import pickle, subprocess, sys
    import miniray.compat
    miniray.compat.install()
    import ray
    from ray.util.queue import Queue

    def tell():
        import miniray, ray, ray.exceptions
        code = "import ray, ray.util.queue, miniray; print(ray is miniray)"
        nested = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        return ray is miniray, ray.exceptions is miniray.exceptions, nested, Queue.__module__, ray.__version__

    ray.init(num_cpus=1)
    print(tell())
    print(ray.get(ray.remote(tell).remote()))
    @ray.remote
    class Teller:
        def tell(self):
            return tell()
    print(ray.get(Teller.remote().tell.remote()))
    print(b"miniray.exceptions" in pickle.dumps(ray.exceptions.GetTimeoutError))
    @ray.remote
    def fails():
        raise ray.exceptions.ObjectLostError("00", None, "")
    try:
        ray.get(fails.remote())
    except ray.exceptions.RayTaskError as error:
        print(isinstance(error, ray.exceptions.ObjectLostError))
    """)
    said = "(True, True, 'True', 'miniray.util.queue', '2.60.0')"
    assert out.splitlines() == [said, said, said, "True", "True"]


def test_a_process_that_multiprocessing_spawns_has_the_alias(tmp_path):
    # It gets the path of its parent, and imports the module of the function before anything else.
    (tmp_path / "app_of_its_own.py").write_text("import ray\ndef tell():\n    print(ray.__name__, flush=True)\n")
    text = """
    import miniray.compat
    miniray.compat.install()
    import app_of_its_own, multiprocessing
    process = multiprocessing.get_context("spawn").Process(target=app_of_its_own.tell)
    process.start()
    process.join()
    """
    assert program(text, PYTHONPATH=f"{PARENT}:{tmp_path}") == "miniray\n"


def test_an_uncaught_error_is_printed_with_rays_name_and_keeps_its_own():
    text = """
    import threading
    import miniray.compat
    miniray.compat.install()
    import ray

    def fails():
        try:
            raise ray.exceptions.RayTaskError("f", "", ValueError("inner")).as_instanceof_cause()
        except ValueError as error:
            raise ray.exceptions.GetTimeoutError("late") from error

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    print(ray.exceptions.GetTimeoutError.__module__)
    fails()
    """
    done = python("-c", textwrap.dedent(text), check=False)
    assert done.returncode == 1
    assert done.stdout == "miniray.exceptions\n"
    printed = done.stderr.splitlines()
    assert printed.count("ray.exceptions.GetTimeoutError: late") == 2
    assert sum(line.startswith("ray.exceptions.RayTaskError(ValueError)") for line in printed) == 2
    assert "miniray.exceptions" not in done.stderr


SCRIPT = """\
import sys
import ray
@ray.remote
def f(x):
    import ray as inner
    return x * 2, inner is ray
ray.init(num_cpus=1)
print(ray.get(f.remote(21)), sys.argv, __name__, ray.__name__)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "a_ray_program.py"
    path.write_text(SCRIPT)
    return path


def test_miniray_run_runs_a_script_and_a_module_with_their_arguments(script):
    out = python("-m", "miniray", "run", str(script), "--flag", "-m").stdout
    assert out == f"(42, True) [{str(script)!r}, '--flag', '-m'] __main__ miniray\n"
    path = f"{PARENT}:{script.parent}"
    out = python("-m", "miniray", "run", "-m", "a_ray_program", "x", PYTHONPATH=path).stdout
    assert out == f"(42, True) [{str(script)!r}, 'x'] __main__ miniray\n"


def test_miniray_run_reads_a_program_from_standard_input(script):
    with script.open() as program:
        out = python("-m", "miniray", "run", "-", "x", stdin=program).stdout
    assert out == "(42, True) ['-', 'x'] __main__ miniray\n"


def test_miniray_run_has_the_programs_exit_code_and_names_what_is_wrong(tmp_path):
    assert python("-m", "miniray", "run", "-c", "raise SystemExit(7)", check=False).returncode == 7
    done = python("-m", "miniray", "run", "-c", "import ray.data", check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError: miniray has no ray.data" in done.stderr
    done = python("-m", "miniray", "run", str(tmp_path / "none.py"), check=False)
    assert (done.returncode, "there is no file" in done.stderr) == (1, True)
    done = python("-m", "miniray", "run", check=False)
    assert (done.returncode, "which program?" in done.stderr) == (1, True)


def test_miniray_run_is_strict_and_extensions_are_an_option():
    code = "import ray, miniray.options; print(miniray.options.strict_mode())"
    assert python("-m", "miniray", "run", "-c", code).stdout == "True\n"
    assert python("-m", "miniray", "run", "--extensions", "-c", code).stdout == "False\n"


def test_miniray_run_reaches_the_program_where_the_environment_is_ignored():
    code = f"import sys; sys.path.insert(0, {PARENT!r}); import miniray.cli.main as cli; sys.exit(cli.main())"
    out = python(
        "-E", "-c", code, "run", "-c", "import ray, sys; print(ray.__name__, sys.flags.ignore_environment)"
    ).stdout
    assert out == "miniray 0\n"


def test_the_shim_folder_is_enough(script):
    out = python(str(script), PYTHONPATH=f"{compat.shim_folder()}:{PARENT}").stdout
    assert out.startswith("(42, True)")
    # Even where miniray is not on the path: the shim lies inside of it.
    out = python("-c", "import ray.util; print(ray.__name__)", PYTHONPATH=compat.shim_folder()).stdout
    assert out == "miniray\n"


def test_the_variable_is_enough_where_miniray_is_imported_first():
    out = program("import miniray, ray; print(ray is miniray, miniray.options.strict_mode())", MINIRAY_AS_RAY="1")
    assert out == "True True\n"


def test_the_line_in_site_packages_finds_the_shim(tmp_path):
    line = (Path(miniray.__file__).parent / "compat" / "miniray_as_ray.pth").read_text()
    assert line.count("\n") == 1 and line.startswith("import ")
    (tmp_path / "sitecustomize.py").write_text(line)  # what `site` does with a .pth file is to run its lines
    path = f"{PARENT}:{tmp_path}"
    code = "import ray; print(ray.__name__)"
    for yes in ("1", "True"):
        assert python("-c", code, PYTHONPATH=path, MINIRAY_AS_RAY=yes).stdout == "miniray\n"
    code = "import sys, miniray.compat; print(miniray.compat.is_installed(), sys.path)"
    for no in ("", "false"):
        out = python("-c", code, PYTHONPATH=path, MINIRAY_AS_RAY=no).stdout
        assert out.startswith("False") and compat.shim_folder() not in out
