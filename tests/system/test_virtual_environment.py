"""Virtual environments: their names, and that they see the packages of this Python."""

import os
import subprocess

import pytest

from miniray.system import virtual_environment


def test_a_name_changes_with_the_contents_of_files(tmp_path):
    file = tmp_path / "wheel.whl"
    file.write_text("one")
    wanted = {"packages": ["wheel.whl"]}
    first = virtual_environment.name_of("pip", wanted, str(tmp_path))
    assert virtual_environment.name_of("pip", wanted, str(tmp_path)) == first
    assert virtual_environment.name_of("uv", wanted, str(tmp_path)) != first
    assert virtual_environment.name_of("pip", {"packages": ["other"]}, str(tmp_path)) != first
    file.write_text("three")
    assert virtual_environment.name_of("pip", wanted, str(tmp_path)) != first


def test_an_environment_sees_what_is_here(tmp_path):
    path = str(tmp_path / "environment")
    virtual_environment.make(path, "pip", {"packages": []}, str(tmp_path))
    command = [virtual_environment.python_of(path), "-c", "import zmq, miniray, sys; print(sys.prefix)"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (path, 0), done.stderr


def test_a_tool_that_fails_is_quoted(tmp_path):
    wanted = {"packages": ["./no-such-directory"]}
    with pytest.raises(virtual_environment.SetUpError, match="no-such-directory"):
        virtual_environment.make(str(tmp_path / "environment"), "pip", wanted, str(tmp_path))
