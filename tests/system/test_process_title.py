"""Process titles, in a process that was started with room for them."""

import subprocess
import sys

import psutil
import pytest

from miniray.system.process_start import TITLE_SPACE, python_command

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="titles need /proc")


def echo_titles():
    """In the child: each line of input becomes the title."""
    from miniray.system import process_title

    for line in sys.stdin:
        process_title.set_title(line.rstrip("\n"))
        process_title.set_name("named")
        print("done", flush=True)


@pytest.fixture
def child():
    command = python_command("tests.system.test_process_title", "echo_titles")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def show(title):
            process.stdin.write(title + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            return psutil.Process(process.pid)

        yield show
        process.stdin.close()


def test_the_title_is_the_command_line_exactly(child):
    for title in ("ray::f", "ray::Actor.method with spaces", "ray::é", "r"):
        assert child(title).cmdline()[0] == title


def test_a_title_that_is_too_long_is_cut(child):
    shown = child("x" * 100_000).cmdline()[0]
    assert set(shown) == {"x"}
    assert len(shown) >= TITLE_SPACE
    assert child("short").cmdline()[0] == "short"


def test_the_environment_stays_readable(child):
    assert child("y" * 100_000).environ()["PATH"]


def test_the_short_name_is_set(child):
    with open(f"/proc/{child('x').pid}/comm") as file:
        assert file.read() == "named\n"
