"""`RuntimeEnv` and `RuntimeEnvConfig`: what they take, what they refuse, what they tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from miniray.runtime_env import RuntimeEnv, RuntimeEnvConfig
from miniray.runtime_env.inheritance import combined


def test_a_runtime_env_is_a_checked_dictionary() -> None:
    env = RuntimeEnv(env_vars={"A": "b"}, config={"setup_timeout_seconds": 5}, anything=1)
    assert env == {
        "env_vars": {"A": "b"},
        "config": {"setup_timeout_seconds": 5, "eager_install": True, "log_files": []},
        "anything": 1,
    }
    assert RuntimeEnv.deserialize(env.serialize()) == env
    pip = RuntimeEnv(pip=["a", "a"])
    assert pip["pip"] == {"packages": ["a"], "pip_check": False} and pip["_ray_commit"]
    assert env.env_vars() == {"A": "b"} and env.working_dir() == "" and not env.has_conda()


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"env_vars": {"a": 1}}, TypeError, "but the value 1 is of type <class 'int'>"),
        ({"env_vars": {1: "a"}}, TypeError, "but the key 1 is of type <class 'int'>"),
        ({"env_vars": ["a"]}, TypeError, "must be of type Dict[str, str], got <class 'list'>"),
        ({"working_dir": 5}, TypeError, "`working_dir` must be a string, got <class 'int'>."),
        ({"working_dir": "/no/such/folder"}, ValueError, "/no/such/folder is not a valid path."),
        ({"py_modules": 5}, TypeError, "`py_modules` must be a list of strings, got <class 'int'>."),
        ({"py_modules": [1]}, TypeError, "`py_module` must be a string, got <class 'int'>."),
        ({"pip": 5}, TypeError, "runtime_env['pip'] must be of type str or List[str], got <class 'int'>"),
        ({"pip": "x.txt"}, ValueError, "x.txt is not a valid file"),
        ({"conda": 5}, TypeError, "runtime_env['conda'] must be of type str or dict, got <class 'int'>."),
        ({"pip": ["a"], "conda": "b"}, ValueError, "cannot be specified at the same time"),
        ({"excludes": 5}, TypeError, "runtime_env['excludes'] must be of type List[str], got <class 'int'>"),
        ({"config": 5}, TypeError, "must be of type dict or RuntimeEnvConfig, got: <class 'int'>"),
    ],
    ids=str,
)
def test_wrong_fields_of_a_runtime_env_are_refused(fields: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        RuntimeEnv(**fields)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"setup_timeout_seconds": 0}, ValueError, "must be greater than zero or equals to -1, got: 0"),
        ({"setup_timeout_seconds": "a"}, TypeError, "must be of type int, got: <class 'str'>"),
        ({"eager_install": 5}, TypeError, "eager_install must be a boolean. got <class 'int'>"),
        ({"log_files": "x"}, TypeError, "log_files must be a list of strings or None, got x with type <class 'str'>."),
    ],
    ids=str,
)
def test_wrong_fields_of_its_config_are_refused(fields: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        RuntimeEnvConfig(**fields)
    assert text in str(caught.value)


@dataclass
class Inner:
    number: int


@dataclass
class Field:
    inner: Inner
    text: str


def test_a_dataclass_goes_in_as_a_dictionary_and_comes_back_as_itself() -> None:
    env = RuntimeEnv()
    env.set("field", Field(Inner(1), "a"))
    assert env == {"field": {"inner": {"number": 1}, "text": "a"}} and env.plugins() == [("field", env["field"])]
    assert env.get("field", data_class=Field) == Field(Inner(1), "a")


def test_a_requirements_file_is_its_lines(tmp_path: Any) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("one==1\n# comment\ntwo\n")
    assert RuntimeEnv(pip=str(file)).pip_config()["packages"] == ["one==1", "# comment", "two"]


def test_an_environment_is_on_top_of_the_inherited_one() -> None:
    inherited = RuntimeEnv(env_vars={"A": "1", "B": "1"}, py_executable="p").serialize()
    own = RuntimeEnv(env_vars={"B": "2"}, py_executable="q")
    assert RuntimeEnv.deserialize(combined(inherited, own)) == {
        "env_vars": {"A": "1", "B": "2"},
        "py_executable": "q",
    }
    assert combined("", own) == own.serialize()
