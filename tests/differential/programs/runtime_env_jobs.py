"""Runtime environments of jobs: what `init` takes along, hooks, and what it refuses."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path

from ..catalog import program
from ..observe import outcome

AREA = "runtime-env"
SESSION = {"num_cpus": 1}
QUIET = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}


def project(folder):
    """A folder with all that is treated in its own way."""
    files = {
        "module_of_project.py": "VALUE = 1",
        "package/__init__.py": "VALUE = 2",
        ".git/config": "",
        ".venv/file": "",
        "venv/file": "",
        "deep/__pycache__/file.pyc": "",
        "node_modules/file": "",
        ".hidden": "",
        ".gitignore": "ignored/\n*.log\n!keep.log\n/rooted.txt\n",
        ".rayignore": "ray_ignored.txt\n",
        "ignored/file": "",
        "deep/ignored/file": "",
        "some.log": "",
        "keep.log": "",
        "rooted.txt": "",
        "deep/rooted.txt": "",
        "ray_ignored.txt": "",
        "deep/.gitignore": "below.txt",
        "deep/below.txt": "",
        "below.txt": "",
        "excluded.txt": "",
        "deep/excluded.txt": "",
        "excluded_folder/file": "",
    }
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Path(folder, "empty").mkdir()
    return str(folder)


def look(ray):
    """What a task sees."""

    @ray.remote
    def task():
        import sys as system

        return [
            sorted(
                os.path.normpath(os.path.join(folder, name))
                for folder, folders, files in os.walk(".")
                for name in [*files, *([] if folders or files else ["."])]
            ),
            os.getcwd() in system.path,
            os.environ.get("PYTHONPATH", "").split(os.pathsep)[0] == os.getcwd(),
        ]

    return ray.get(task.remote())


def where_of(ray, **options):
    def where():
        return os.getcwd()

    task = ray.remote(where)
    return ray.get(task.options(**options).remote() if options else task.remote())


def value_of(ray, *names):
    @ray.remote
    def task(name):
        return importlib.import_module(name).VALUE

    return [outcome(lambda name=name: ray.get(task.remote(name)), text="last") for name in names]


@program("runtime-env/working-dir", fresh=True)
def a_working_directory(ray):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        Path(beside, "module_of_driver.py").write_text("VALUE = 3")
        sys.path.insert(0, beside)
        env = {"working_dir": project(folder), "excludes": ["excluded.txt", "/excluded_folder"]}
        ray.init(num_cpus=2, runtime_env=env, **QUIET)
        named = ray.get_runtime_context().runtime_env
        return [
            look(ray),
            value_of(ray, "module_of_project", "package", "module_of_driver"),
            sorted(named),
            named["working_dir"].startswith("gcs://_ray_pkg_") and named["working_dir"].endswith(".zip"),
            where_of(ray) == where_of(ray, runtime_env={"env_vars": {"A": "a"}}),
            where_of(ray) == os.getcwd(),
        ]


@program("runtime-env/working-dir", fresh=True)
def excludes_by_environment_variables(ray):
    os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] = "deep, empty"
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=1, runtime_env={"working_dir": project(folder)}, **QUIET)
        return look(ray)


@program("runtime-env/working-dir", fresh=True)
def modules_of_a_job(ray):
    with tempfile.TemporaryDirectory() as folder:
        project(folder)
        Path(folder, "alone.py").write_text("VALUE = 4")
        env = {"py_modules": [f"{folder}/package", f"{folder}/alone.py", importlib.import_module("wsgiref")]}
        ray.init(num_cpus=1, runtime_env=env, **QUIET)

        @ray.remote
        def place():
            import wsgiref

            return "runtime_resources" in wsgiref.__file__

        return [value_of(ray, "package", "alone"), ray.get(place.remote()), where_of(ray) == os.getcwd()]


@program("runtime-env/working-dir", fresh=True)
def an_archive_as_working_directory(ray):
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(f"{folder}/one.zip", "w") as file:
            file.writestr("top/inside.txt", "")
            file.writestr("module_of_archive.py", "VALUE = 5")
        ray.init(num_cpus=1, runtime_env={"working_dir": f"{folder}/one.zip"}, **QUIET)
        return [look(ray), value_of(ray, "module_of_archive")]


@program("runtime-env/hooks", fresh=True)
def a_hook(ray):
    def hook():
        os.environ["HOOKED"] = os.environ.get("HOOKED", "") + "x"

    ray.init(num_cpus=2, runtime_env={"worker_process_setup_hook": hook}, **QUIET)

    @ray.remote
    def task():
        named = ray.get_runtime_context().runtime_env
        return [os.environ.get("HOOKED"), sorted(named), sorted(named["env_vars"])]

    @ray.remote
    class Actor:
        def look(self):
            return os.environ.get("HOOKED")

    return [
        ray.get(task.remote()),
        ray.get(task.remote()),
        ray.get(task.options(runtime_env={"env_vars": {"A": "a"}}).remote()),
        ray.get(Actor.remote().look.remote()),
        os.environ.get("HOOKED"),
    ]


@program("runtime-env/hooks", fresh=True)
def a_hook_by_name(ray):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "module_of_hook.py").write_text("import os\ndef hook():\n    os.environ['HOOKED'] = 'named'\n")
        env = {"working_dir": folder, "worker_process_setup_hook": "module_of_hook.hook"}
        ray.init(num_cpus=1, runtime_env=env, **QUIET)

        @ray.remote
        def task():
            return os.environ.get("HOOKED")

        return ray.get(task.remote())


@program("runtime-env/hooks", "runtime-env/setup-errors", fresh=True)
def a_hook_that_fails(ray):
    def hook():
        raise ValueError("from the hook")

    ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook}, **QUIET)

    @ray.remote
    class Actor:
        def method(self):
            pass

    def created():
        ray.get(Actor.remote().method.remote())

    return [
        outcome(lambda: where_of(ray, max_retries=0), text="first"),
        outcome(created, text="Failed to execute the setup hook method."),
        outcome(created, text="ValueError: from the hook"),
    ]


@program("runtime-env/setup-errors", "runtime-env/working-dir", fresh=True)
def jobs_with_wrong_directories(ray):
    def tried(env):
        result = outcome(lambda: bool(ray.init(num_cpus=1, runtime_env=env, **QUIET)))
        ray.shutdown()
        return result

    return [tried({"working_dir": "/no/such/folder"}), tried({"working_dir": 3}), tried({"py_modules": 3})]


@program("runtime-env/setup-errors", "runtime-env/hooks", fresh=True)
def jobs_with_wrong_hooks(ray):
    import threading

    lock = threading.Lock()

    def tried(hook):
        result = outcome(lambda: bool(ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook}, **QUIET)))
        ray.shutdown()
        return result

    return [tried(3), tried(lambda: lock)]


@program("runtime-env/job-config", "runtime-env/env-vars", fresh=True)
def environments_in_job_configs(ray):
    config = importlib.import_module(f"{ray.__name__}.job_config").JobConfig
    job = config(runtime_env={"env_vars": {"A": "1", "B": "1"}}, ray_namespace="n")
    ray.init(num_cpus=1, job_config=job, runtime_env={"env_vars": {"A": "2"}}, **QUIET)

    @ray.remote
    def task():
        return [os.environ.get("A"), os.environ.get("B"), ray.get_runtime_context().namespace]

    return [dict(ray.get_runtime_context().runtime_env), ray.get(task.remote())]
