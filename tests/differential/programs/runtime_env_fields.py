"""Runtime environments as data: what each field takes, what is refused, and what the object tells."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..catalog import program
from ..observe import outcome

AREA = "runtime-env"
SESSION = {"num_cpus": 1}


def classes(ray):
    module = importlib.import_module(f"{ray.__name__}.runtime_env")
    return module.RuntimeEnv, module.RuntimeEnvConfig


def shown(env, folder=""):
    """An environment without what names the engine."""
    return {
        name: str(value).replace(folder, "FOLDER") if folder else value
        for name, value in env.items()
        if name != "_ray_commit"
    }


def answers(ray, field, values, folder=""):
    environment, _ = classes(ray)
    results = []
    for value in values:
        result = outcome(lambda value=value: shown(environment(**{field: value}), folder))
        if folder and "text" in result:
            result["text"] = result["text"].replace(folder, "FOLDER")
        results.append(result)
    return results


@program("runtime-env/fields")
def environment_variables(ray):
    return answers(ray, "env_vars", ({"A": "1"}, {}, {"A": 1}, {1: "a"}, ["a"], "text", 1))


@program("runtime-env/fields", "runtime-env/working-dir")
def working_directories(ray):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file.txt").touch()
        values = (
            folder,
            f"{folder}/file.txt",
            "/no/such/folder",
            "",
            1,
            {},
            "gcs://package.zip",
            "gcs://package",
            "https://example.com/a.zip",
            "https://example.com/a.tar.gz",
            "https://example.com/a",
            "file:///somewhere",
            "unknown://a.zip",
        )
        return answers(ray, "working_dir", values, folder)


@program("runtime-env/fields", "runtime-env/working-dir")
def modules(ray):
    with tempfile.TemporaryDirectory() as folder:
        values = ([folder], [], ["/no/such/folder"], "text", 1, [1], [tempfile], ["s3://a/b.whl"], ["s3://a/b"])
        return answers(ray, "py_modules", values, folder)


@program("runtime-env/fields", "runtime-env/packages")
def pip_packages(ray):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("one==1\n# comment\ntwo\none==1\n")
        values = (
            ["a", "b", "a"],
            [],
            ("a",),
            [1],
            1,
            str(file),
            "/no/such/file.txt",
            {},
            {"packages": ["a"]},
            {"packages": str(file), "pip_check": True, "pip_version": "==1"},
            {"packages": 1},
            {"pip_check": True},
            {"packages": ["a"], "pip_check": 1},
            {"packages": ["a"], "pip_version": 1},
            {"packages": ["a"], "pip_install_options": ["--no-index"]},
            {"packages": ["a"], "pip_install_options": 1},
            {"packages": ["a"], "pip_install_options": [1]},
            {"packages": ["a"], "other": 1},
        )
        return answers(ray, "pip", values, folder)


@program("runtime-env/fields", "runtime-env/packages")
def uv_packages(ray):
    values = (
        ["a", "b", "a"],
        [],
        [1],
        1,
        {"packages": ["a"]},
        {"packages": ["a"], "uv_check": True, "uv_version": "==1"},
        {"packages": 1},
        {"packages": ["a"], "uv_check": 1},
        {"packages": ["a"], "uv_pip_install_options": []},
        {"packages": ["a"], "uv_pip_install_options": 1},
        {"packages": ["a"], "other": 1},
    )
    return answers(ray, "uv", values)


@program("runtime-env/fields")
def other_fields(ray):
    return [
        answers(ray, "excludes", (["a"], [], [1], 1)),
        answers(ray, "conda", ("name", {"dependencies": ["a"]}, {}, 1, "/no/such/file.yml")),
        answers(ray, "container", ({"image": "i"},)),
        answers(ray, "image_uri", ("image",)),
        answers(ray, "py_executable", ("python",)),
        answers(ray, "worker_process_setup_hook", ("module.function",)),
        answers(ray, "nsight", ("default", {"a": "b"})),
        answers(ray, "anything", (1, None)),
        outcome(lambda: classes(ray)[0]({"env_vars": {}}), text="none"),
    ]


@program("runtime-env/fields", "runtime-env/hooks")
def configurations(ray):
    environment, config = classes(ray)
    values = (
        {},
        {"setup_timeout_seconds": 10},
        {"setup_timeout_seconds": -1, "eager_install": False, "log_files": ["a"]},
        {"unknown": 1},
        {"setup_timeout_seconds": 0},
        {"setup_timeout_seconds": "1"},
        {"eager_install": 2},
        {"log_files": "a"},
        {"log_files": [1]},
        1,
    )
    parsed = config.parse_and_validate_runtime_env_config({"setup_timeout_seconds": 5})
    return [
        answers(ray, "config", values),
        dict(config()),
        dict(config.default_config()),
        sorted(config.known_fields),
        [type(parsed).__name__, parsed.to_dict(), type(parsed.to_dict()).__name__],
        type(environment(config={})["config"]).__name__,
        type(environment(config={}).to_dict()["config"]).__name__,
    ]


@program("runtime-env/fields")
def fields_that_exclude_each_other(ray):
    environment, _ = classes(ray)
    return [
        outcome(lambda: environment(pip=["a"], conda="b")),
        outcome(lambda: environment(pip=["a"], uv=["b"])),
        outcome(lambda: environment(container={"image": "a"}, pip=["b"])),
        outcome(lambda: environment(image_uri="a", working_dir="gcs://a.zip")),
        outcome(lambda: bool(environment(image_uri="a", env_vars={"A": "b"}, config={}))),
    ]


_GETTERS = (
    "conda_config",
    "conda_env_name",
    "conda_uri",
    "env_vars",
    "has_conda",
    "has_pip",
    "has_py_container",
    "has_uv",
    "has_working_dir",
    "image_uri",
    "java_jars",
    "nsight",
    "pip_config",
    "pip_uri",
    "plugin_uris",
    "plugins",
    "py_container_image",
    "py_container_run_options",
    "py_container_worker_path",
    "py_executable",
    "py_modules",
    "py_modules_uris",
    "rocprof_sys",
    "uv_config",
    "uv_uri",
    "virtualenv_name",
    "working_dir",
    "working_dir_uri",
)


@program("runtime-env/fields")
def what_an_environment_tells(ray):
    environment, _ = classes(ray)
    environments = (
        environment(),
        environment(
            pip=["a"],
            env_vars={"A": "b"},
            py_modules=["gcs://m.zip"],
            working_dir="gcs://w.zip",
            py_executable="python",
            java_jars=["gcs://j.zip"],
            nsight="default",
            rocprof_sys="default",
            own={"field": 1},
        ),
        environment(uv=["a"]),
        environment(conda="name"),
        environment(conda={"dependencies": ["a"]}),
        environment(container={"image": "i", "worker_path": "w", "run_options": ["o"]}),
        environment(image_uri="i"),
    )
    return [{name: outcome(getattr(env, name)) for name in _GETTERS} for env in environments]


@dataclass
class Field:
    number: int
    text: str


@program("runtime-env/fields", "runtime-env/plugins")
def setting_fields(ray):
    environment, _ = classes(ray)
    env = environment(env_vars={"A": "a"})
    results = [outcome(lambda: env.set("env_vars", {"A": 1})), dict(env)]
    env.set("own", Field(1, "a"))
    env["env_vars"] = {"B": "b"}
    results += [dict(env), env.plugins(), env.get("own", data_class=Field) == Field(1, "a"), env.get("none", 5)]
    env["uv"] = ["a"]
    results += [dict(env), isinstance(env, dict), len(env)]
    results += [outcome(lambda: env.get_extension("_ray_release")), env.get_extension("_ray_commit")]
    results.append(outcome(lambda: env.get_extension("other"), text="Extension key must be one of"))
    return results


@program("runtime-env/fields")
def environments_as_text(ray):
    environment, _ = classes(ray)
    env = environment(env_vars={"B": "1", "A": "2"}, working_dir="gcs://a.zip", config={"setup_timeout_seconds": 5})
    again = environment.deserialize(env.serialize())
    return [
        env.serialize(),
        environment().serialize(),
        again == env,
        type(again).__name__,
        dict(environment.deserialize('{"pip": {"packages": ["a"]}}')),
        environment.deserialize('{"env_vars": 5}').env_vars(),
        sorted(environment.known_fields),
    ]


@program("runtime-env/job-config")
def job_configurations(ray):
    config = importlib.import_module(f"{ray.__name__}.job_config").JobConfig
    env = {"env_vars": {"A": 1}}

    def look(job):
        return [job.jvm_options, job.code_search_path, dict(job.runtime_env), job.metadata, job.ray_namespace]

    def changed():
        job = config()
        job.set_metadata("a", "b")
        job.set_ray_namespace("n")
        job.set_default_actor_lifetime("detached")
        job.set_runtime_env({"env_vars": {"A": "1"}}, validate=True)
        return look(job)

    return [
        outcome(lambda: look(config())),
        outcome(lambda: look(config(code_search_path=["a"], metadata={"a": "b"}, ray_namespace="n"))),
        outcome(lambda: config(code_search_path="a")),
        outcome(lambda: config(default_actor_lifetime="for ever")),
        outcome(lambda: look(config(runtime_env=env))),
        outcome(lambda: config().set_runtime_env(env)),
        outcome(lambda: config().set_runtime_env(env, validate=True)),
        outcome(changed),
        outcome(lambda: look(config.from_json({"ray_namespace": "n", "metadata": {"a": "b"}, "unknown": 1}))),
        outcome(lambda: bool(config.from_json({"default_actor_lifetime": "for ever"}))),
    ]


@program("runtime-env/setup-errors")
def setup_errors_as_text(ray):
    error = importlib.import_module(f"{ray.__name__}.exceptions").RuntimeEnvSetupError
    return [str(error()), str(error("why")), error("why").error_message, [kind.__name__ for kind in error.__mro__[:3]]]
