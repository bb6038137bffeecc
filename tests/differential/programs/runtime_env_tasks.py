"""Runtime environments of tasks and actors, in a job that has one."""

# mypy: ignore-errors
from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import zipfile
from pathlib import Path

from ..catalog import program
from ..observe import outcome

AREA = "runtime-env"
SESSION = {"num_cpus": 4, "runtime_env": {"env_vars": {"JOB": "job", "BOTH": "job"}}}


def look(*names):
    return [os.environ.get(name) for name in names]


@program("runtime-env/env-vars")
def variables_that_refer_to_others(ray):
    own = {"env_vars": {"PATH": "/first:${PATH}", "A": "<${NO_SUCH}>", "B": "${A}", "C": "$HOME", "D": "a$b"}}
    path, *others, home, missing = ray.get(ray.remote(look).options(runtime_env=own).remote("PATH", "A", "B", "C", "D"))
    return [path.startswith("/first:/") or path, path.count("/first"), others, home == os.environ.get("HOME"), missing]


@program("runtime-env/env-vars", "context/runtime-env")
def what_the_context_says(ray):
    def context():
        here = ray.get_runtime_context()
        return [dict(here.runtime_env), here.get_runtime_env_string()]

    task = ray.remote(context)

    @ray.remote
    def parent():
        child = task.options(runtime_env={"env_vars": {"CHILD": "c"}})
        return [context(), ray.get(task.remote()), ray.get(child.remote())]

    @ray.remote(runtime_env={"env_vars": {"BOTH": "actor"}})
    class Actor:
        def look(self):
            return [context(), ray.get(task.remote())]

    own = {"env_vars": {"BOTH": "task"}, "config": {"setup_timeout_seconds": 100}}
    return [
        context(),
        ray.get(task.remote()),
        ray.get(task.options(runtime_env={}).remote()),
        ray.get(task.options(runtime_env=own).remote()),
        ray.get(parent.options(runtime_env={"env_vars": {"PARENT": "p"}}).remote()),
        ray.get(Actor.remote().look.remote()),
    ]


@program("runtime-env/env-vars")
def options_and_decorators(ray):
    names = ("JOB", "DECORATOR", "OPTION")
    decorated = ray.remote(runtime_env={"env_vars": {"DECORATOR": "d"}})(look)

    @ray.remote(runtime_env={"env_vars": {"DECORATOR": "d"}})
    class Actor:
        def look(self):
            return look(*names)

    own = {"env_vars": {"OPTION": "o"}}
    return [
        ray.get(decorated.remote(*names)),
        ray.get(decorated.options(runtime_env=own).remote(*names)),
        ray.get(decorated.options(num_cpus=1).remote(*names)),
        ray.get(Actor.remote().look.remote()),
        ray.get(Actor.options(runtime_env=own).remote().look.remote()),
        ray.get(decorated.remote(*names)),
    ]


@program("runtime-env/env-vars", "processes/worker-reuse")
def workers_of_one_environment(ray):
    @ray.remote
    def pid():
        return os.getpid()

    def of(env):
        return ray.get(pid.options(runtime_env=env).remote())

    one = of({"env_vars": {"N": "1", "M": "1"}})
    plain = of(None)
    return [
        of({"env_vars": {"M": "1", "N": "1"}}) == one,
        of({"env_vars": {"N": "2", "M": "1"}}) == one,
        of({"env_vars": {"N": "1", "M": "1"}, "config": {"setup_timeout_seconds": 7}}) == one,
        plain == one,
        of({}) == plain,
    ]


@program("runtime-env/working-dir")
def directories_that_only_a_job_can_take_along(ray):
    task = ray.remote(look)

    class Actor:
        pass

    with tempfile.TemporaryDirectory() as folder:

        def tried(env):
            result = outcome(lambda: bool(task.options(runtime_env=env)))
            in_decorator = outcome(lambda: bool(ray.remote(runtime_env=env)(look)))
            of_actor = outcome(lambda: bool(ray.remote(Actor).options(runtime_env=env)))
            text = result.get("text", "").replace(folder, "FOLDER")
            return [{**result, "text": text}, in_decorator == result, of_actor == result]

        return [
            tried({"working_dir": folder}),
            tried({"py_modules": [folder]}),
            tried({"working_dir": "/no/such/folder"}),
            tried({"py_modules": [tempfile]}),
        ]


@program("runtime-env/working-dir")
def archives_by_uri(ray):
    @ray.remote
    def files():
        return [sorted(os.listdir(".")), os.getcwd() == os.environ["PYTHONPATH"].split(os.pathsep)[0]]

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(f"{folder}/one.zip", "w") as file:
            file.writestr("top/inside.txt", "")
        one = {"working_dir": f"file://{folder}/one.zip"}
        return [
            ray.get(files.options(runtime_env=one).remote()),
            outcome(
                lambda: ray.get(files.options(runtime_env={"working_dir": f"file://{folder}/no.zip"}).remote()),
                text="Failed to set up runtime environment.",
            ),
            outcome(
                lambda: ray.get(files.options(runtime_env={"working_dir": "gcs://_ray_pkg_none.zip"}).remote()),
                text="Failed to download runtime_env file package gcs://_ray_pkg_none.zip",
            ),
        ]


@program("runtime-env/plugins")
def fields_that_nobody_knows(ray):
    return ray.get(ray.remote(look).options(runtime_env={"no_such_field": {"a": 1}}).remote("JOB"))


@program("runtime-env/hooks")
def hooks_of_tasks(ray):
    task = ray.remote(look)
    return [
        outcome(lambda: task.options(runtime_env={"worker_process_setup_hook": look}).remote("JOB")),
        ray.get(task.options(runtime_env={"worker_process_setup_hook": "no.such.module"}).remote("JOB")),
    ]


@program("runtime-env/packages", "runtime-env/setup-errors")
def packages_that_cannot_be_had(ray):
    env = {"pip": {"packages": ["no-such-package-anywhere"], "pip_install_options": ["--no-index"]}}

    @ray.remote(runtime_env=env)
    class Actor:
        def method(self):
            pass

    task = ray.remote(look).options(runtime_env=env)
    reason = "No matching distribution found for no-such-package-anywhere"
    actor = "Could not create the actor because its associated runtime env failed to be created."
    return [
        outcome(lambda: ray.get(task.remote()), text=reason),
        outcome(lambda: ray.get(Actor.remote().method.remote()), text=actor),
        outcome(lambda: ray.get(Actor.remote().method.remote()), text=reason),
    ]


@program("runtime-env/setup-errors")
def set_up_that_takes_too_long(ray):
    # A directory whose build waits longer than anybody would.
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/setup.py", "w") as file:
            file.write("import time; time.sleep(40)")
        env = {"pip": [folder], "config": {"setup_timeout_seconds": 1}}
        return outcome(
            lambda: ray.get(ray.remote(look).options(runtime_env=env).remote()),
            text="Failed to install runtime_env within the timeout of 1 seconds. Consider increasing the timeout in "
            "the runtime_env config.",
        )


@program("runtime-env/setup-errors")
def what_is_not_there(ray):
    task = ray.remote(look)
    return [
        outcome(lambda env=env: ray.get(task.options(runtime_env=env).remote()), text="none")
        for env in ({"conda": "no-such-environment"}, {"nsight": "default"})
    ]


@program("runtime-env/packages")
def interpreters_of_their_own(ray):
    env = {"py_executable": f"env FROM_COMMAND=yes {sys.executable}"}
    return ray.get(ray.remote(look).options(runtime_env=env).remote("FROM_COMMAND", "JOB"))


@program("runtime-env/packages")
def packages_that_the_driver_does_not_have(ray):
    @ray.remote
    class Actor:
        def look(self):
            import cowsay

            return [
                cowsay.__file__.startswith(os.environ["VIRTUAL_ENV"]),
                sys.prefix == os.environ["VIRTUAL_ENV"],
                sorted(name for name in ray.get_runtime_context().runtime_env if name != "_ray_commit"),
                os.environ["PATH"].split(os.pathsep)[0] == os.environ["VIRTUAL_ENV"] + "/bin",
            ]

    def here():
        pass

    return [
        outcome(here),
        ray.get(Actor.options(runtime_env={"pip": ["cowsay"]}).remote().look.remote()),
    ]


@program("runtime-env/packages")
def a_wheel_of_ones_own(ray):
    from ..wheels import make_wheel

    with tempfile.TemporaryDirectory() as folder:
        wheel = make_wheel(Path(folder), "wheel_of_task")

        @ray.remote(runtime_env={"pip": {"packages": [str(wheel)], "pip_install_options": ["--no-index"]}})
        def task():
            import wheel_of_task

            return wheel_of_task.VERSION

        return [ray.get(task.remote()), importlib.util.find_spec("wheel_of_task") is None]
