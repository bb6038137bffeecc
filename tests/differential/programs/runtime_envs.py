"""Runtime environments: environment variables, and what is refused."""

# mypy: ignore-errors
from __future__ import annotations

import os

from ..catalog import program
from ..observe import outcome

AREA = "runtime-env"
SESSION = {"num_cpus": 2, "runtime_env": {"env_vars": {"FROM_INIT": "yes", "BOTH": "init"}}}


def plain():
    return 1


def look(*names):
    return [os.environ.get(name) for name in names]


@program("runtime-env/env-vars")
def environment_variables(ray):
    @ray.remote
    def parent():
        return ray.get(ray.remote(look).remote("FROM_INIT", "BOTH", "OWN"))

    task = ray.remote(look)
    own = {"env_vars": {"OWN": "mine", "BOTH": "task"}}
    return [
        ray.get(task.remote("FROM_INIT", "BOTH", "OWN")),
        ray.get(task.options(runtime_env=own).remote("FROM_INIT", "BOTH", "OWN")),
        ray.get(parent.options(runtime_env=own).remote()),
        os.environ.get("FROM_INIT"),
    ]


@program("runtime-env/env-vars", "tasks/worker-env")
def threads_that_the_environment_sets(ray):
    return ray.get(
        ray.remote(look).options(runtime_env={"env_vars": {"OMP_NUM_THREADS": "7"}}).remote("OMP_NUM_THREADS")
    )


@program("runtime-env/env-vars")
def environments_with_wrong_contents(ray):
    given = ({"env_vars": {"A": 1}}, {"env_vars": ["A"]}, {"working_dir": 1})
    return [
        [outcome(lambda env=env: bool(ray.remote(runtime_env=env)(plain))) for env in given],
        [outcome(lambda env=env: bool(ray.remote(plain).options(runtime_env=env))) for env in given],
    ]
