"""The cache of virtual environments: made once, whole, bounded, and never removed under a user."""

import os
import subprocess
import sys
import time

import pytest

from miniray.system.environment_cache import CachedEnvironment, shrink

TIMEOUT = 30


def fill(path):
    os.makedirs(path)
    with open(os.path.join(path, "file"), "w") as file:
        file.write("x" * 1000)


def close(environment):
    os.close(environment._descriptor)


def test_it_is_made_once(tmp_path):
    made = []
    for _ in range(2):
        environment = CachedEnvironment(str(tmp_path), "one")
        environment.take(lambda path: (made.append(path), fill(path)))
        close(environment)
    assert made == [str(tmp_path / "one")]


def test_one_that_fails_leaves_nothing_and_is_tried_again(tmp_path):
    def fail(path):
        fill(path)
        raise ValueError("no")

    environment = CachedEnvironment(str(tmp_path), "one")
    with pytest.raises(ValueError, match="no"):
        environment.take(fail)
    close(environment)
    assert not os.path.exists(environment.path)
    again = CachedEnvironment(str(tmp_path), "one")
    again.take(fill)
    close(again)


def test_one_that_was_not_finished_is_made_anew(tmp_path):
    fill(tmp_path / "one")
    (tmp_path / "one" / "half").write_text("")
    environment = CachedEnvironment(str(tmp_path), "one")
    environment.take(fill)
    close(environment)
    assert not (tmp_path / "one" / "half").exists()


def test_the_longest_unused_go_first_and_those_in_use_stay(tmp_path):
    names = ["oldest", "older", "used", "new"]
    environments = {}
    for age, name in zip((40, 30, 50, 10), names, strict=True):
        environments[name] = CachedEnvironment(str(tmp_path), name)
        environments[name].take(fill)
        os.utime(tmp_path / name / ".whole", (time.time() - age,) * 2)
        if name != "used":
            close(environments[name])
    size = int((tmp_path / "new" / ".whole").read_text())
    shrink(str(tmp_path), 2 * size)
    assert sorted(name for name in names if (tmp_path / name).exists()) == ["new", "used"]
    close(environments["used"])


def test_one_whose_maker_was_killed_goes_with_the_next_that_is_made(tmp_path):
    fill(tmp_path / "killed")
    (tmp_path / "killed.lock").touch()
    fill(tmp_path / "of somebody else")
    being_made = CachedEnvironment(str(tmp_path), "being made")

    def make_another_meanwhile(path):
        fill(path)
        another = CachedEnvironment(str(tmp_path), "another")
        another.take(fill)
        close(another)

    being_made.take(make_another_meanwhile)
    close(being_made)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "another",
        "being made",
        "of somebody else",
    ]
    assert (tmp_path / "being made" / "file").exists()


def test_two_who_want_the_same_wait_for_one_another(tmp_path):
    script = (
        "import os, sys; from miniray.system.environment_cache import CachedEnvironment\n"
        "def make(path):\n"
        "    os.makedirs(path); open(sys.argv[2], 'a').write('made\\n')\n"
        "CachedEnvironment(sys.argv[1], 'one').take(make)\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), str(log)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(TIMEOUT) for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"
