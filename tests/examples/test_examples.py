"""Each example runs as a program of its own, on miniray, and on the real Ray where that is installed."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

#: What each example prints, line for line, among what a session says by itself.
EXPECTED = {
    "hello.py": ["[0, 1, 4, 9]"],
    "parallel_map.py": [
        "day 1: 49.88",
        "day 2: 49.00",
        "day 3: 48.12",
        "day 4: 55.67",
        "day 5: 46.38",
        "day 6: 49.71",
        "day 7: 53.04",
        "warmest: day 4 with 55.67",
        "4 results are ready, 6 may still be under way",
    ],
    "errors.py": [
        "TooHot: 55 degrees, also a RayTaskError: True",
        "a task that depends on it fails with the same cause: TooHot",
        "worked at attempt 3",
        "a worker that dies is an error, not a hang",
        "GetTimeoutError: the task still runs, but nobody waits for it",
    ],
    "numpy_zero_copy.py": [
        "32,000,000 bytes, stored once",
        "column sums: [1999998000000.0, 1999999000000.0, 2000000000000.0, 2000001000000.0]",
        "what a task sees: {'shape': (1000000, 4), 'writeable': False, 'owns its data': False}",
        "written to: assignment destination is read-only",
        "a copy may be changed: 1.0 while the stored one stays: 0.0",
    ],
}

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None and not os.environ.get("MINIRAY_REQUIRE_RAY"),
    reason="the real Ray is not installed",
)


def run(
    program: Path, *arguments: object, cwd: Path, expect_code: int = 0, command: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *command, str(program), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert done.returncode == expect_code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def on_ray(name: str, folder: Path) -> Path:
    """The example with its import changed, and nothing else."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert source.count("import miniray as ray\n") == 1
    program = folder / name
    program.write_text(source.replace("import miniray as ray\n", "import ray\n"), encoding="utf-8")
    return program


def test_every_example_is_run_here():
    with_tests_of_their_own = {"stdlib_census.py", "channels.py", "run_bus.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*EXPECTED, *with_tests_of_their_own}


@pytest.mark.parametrize("name", EXPECTED)
def test_it_prints_what_it_promises(name, tmp_path):
    if name.startswith("numpy"):
        pytest.importorskip("numpy")
    lines = run(EXAMPLES / name, cwd=tmp_path).stdout.splitlines()
    assert [line for line in lines if line in EXPECTED[name]] == EXPECTED[name], lines
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "errors.py"])  # that one ends a process
def test_it_prints_the_same_in_local_mode(name, tmp_path, monkeypatch):
    if name.startswith("numpy"):
        pytest.importorskip("numpy")
    monkeypatch.setenv("MINIRAY_LOCAL_MODE", "1")
    lines = run(EXAMPLES / name, cwd=tmp_path).stdout.splitlines()
    assert [line for line in lines if line in EXPECTED[name]] == EXPECTED[name], lines


@pytest.mark.parametrize("name", EXPECTED)
def test_it_prints_the_same_under_miniray_run_when_it_imports_ray(name, tmp_path):
    if name.startswith("numpy"):
        pytest.importorskip("numpy")
    lines = run(on_ray(name, tmp_path), cwd=tmp_path, command=["-m", "miniray", "run"]).stdout.splitlines()
    assert [line for line in lines if line in EXPECTED[name]] == EXPECTED[name], lines


@needs_ray
@pytest.mark.differential
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", EXPECTED)
def test_it_prints_the_same_on_ray_by_the_engine(name, tmp_path):
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert source.count("ray.init()") == 1
    program = tmp_path / name
    program.write_text(source.replace("ray.init()", 'ray.init(engine="ray")'), encoding="utf-8")
    lines = run(program, cwd=tmp_path).stdout.splitlines()
    assert [line for line in lines if line in EXPECTED[name]] == EXPECTED[name], lines


@needs_ray
@pytest.mark.differential
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", EXPECTED)
def test_it_prints_the_same_on_ray_by_changing_the_import(name, tmp_path):
    lines = run(on_ray(name, tmp_path), cwd=tmp_path).stdout.splitlines()
    assert [line for line in lines if line in EXPECTED[name]] == EXPECTED[name], lines


# ---- The census --------------------------------------------------------------------------------------------------


def section(output: str, title: str) -> list[list[str]]:
    """The rows of one table, split at runs of spaces."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    rows = []
    for line in lines[start + 4 :]:
        if not line.strip():
            break
        rows.append(re.split(r"\s{2,}", line.strip()))
    return rows


def without_time(output: str) -> list[str]:
    lines = output.splitlines()
    return lines[lines.index("In all") : -1]


@pytest.fixture
def project(tmp_path):
    """A folder of source files with every kind of bad file in it."""
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    (root / "good.py").write_text(
        "import os, sys\n"
        "from json import loads\n"
        "class A:\n"
        "    def busy(self, n):\n"
        "        for i in range(n):\n"
        "            if i and n or self:\n"
        "                while n:\n"
        "                    n -= 1\n"
        "        return [x for x in range(n) if x]\n"
        "def idle(): pass\n"
    )
    (root / "pkg" / "more.py").write_text("import os\nasync def later():\n    return 1 if later else 2")
    (root / "pkg" / "empty.py").write_text("")
    (root / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    (root / "syntax.py").write_text("x = 1\nprint 'two'\n")
    (root / "encoding.py").write_bytes(b"name = '\xff\xfe'\n")
    (root / "cookie.py").write_text("# coding: no-such-codec\n")
    (root / "nul.py").write_bytes(b"x = 1\0\n")
    (root / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000 + "\n")
    (root / "notes.txt").write_text("not Python")
    (root / "folder.py").mkdir()
    (root / "site-packages").mkdir()
    (root / "site-packages" / "installed.py").write_text("x = 1\n")
    return root


def test_the_census_measures_good_files_and_reports_bad_ones(project, tmp_path):
    chart = tmp_path / "chart.svg"
    output = run(EXAMPLES / "stdlib_census.py", "--root", project, "--output", chart, "--cpus", 2, cwd=tmp_path).stdout
    assert section(output, "In all") == [["4", "15", "3", "1", "5"]]
    assert section(output, "Most complex functions") == [
        ["8", "6", "A.busy", "good.py:4"],
        ["2", "2", "later", "pkg/more.py:2"],
        ["1", "1", "idle", "good.py:10"],
    ]
    assert section(output, "Most imported modules") == [["os", "2"], ["json", "1"], ["sys", "1"]]
    assert section(output, "Largest packages")[:2] == [["good", "10", "66.7%"], ["pkg", "3", "20.0%"]]
    problems = dict(row for row in section(output, "Not measured (5 files"))
    assert sorted(problems) == ["cookie.py", "deep.py", "encoding.py", "nul.py", "syntax.py"]
    assert problems["syntax.py"].startswith("syntax error in line 2")
    assert problems["encoding.py"].startswith("bad encoding")
    assert problems["cookie.py"].startswith("bad encoding: unknown encoding")
    assert output.splitlines()[-1].startswith("9 files in ")
    drawn = "".join(ElementTree.fromstring(chart.read_text(encoding="utf-8")).itertext())
    assert "4 files" in drawn and "5 files not measured" in drawn


def test_the_census_of_the_standard_library_shows_progress_and_draws_a_chart(tmp_path):
    done = run(EXAMPLES / "stdlib_census.py", "--limit", 60, "--output", "census.svg", cwd=tmp_path)
    assert sum(map(int, (section(done.stdout, "In all")[0][0], section(done.stdout, "In all")[0][-1]))) == 60
    assert len(section(done.stdout, "Most complex functions")) == 10
    progress = [line for line in done.stderr.splitlines() if "of 60 files" in line]
    assert 1 <= len(progress) <= 4 and "100%" in progress[-1]
    drawn = ElementTree.parse(tmp_path / "census.svg").getroot()
    assert drawn.tag.endswith("svg")
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"The standard library of Python {version}" in "".join(drawn.itertext())


def test_the_census_is_the_same_under_miniray_run(project, tmp_path):
    program, arguments = EXAMPLES / "stdlib_census.py", ("--root", project, "--cpus", 2)
    ours = run(program, *arguments, "--output", "ours.svg", cwd=tmp_path)
    other = on_ray("stdlib_census.py", tmp_path)
    theirs = run(other, *arguments, "--output", "theirs.svg", cwd=tmp_path, command=["-m", "miniray", "run"])
    assert without_time(ours.stdout) == without_time(theirs.stdout)
    assert (tmp_path / "ours.svg").read_bytes() == (tmp_path / "theirs.svg").read_bytes()


@needs_ray
@pytest.mark.differential
@pytest.mark.timeout(240)
def test_the_census_is_the_same_on_ray(project, tmp_path):
    for arguments in (["--root", project], ["--limit", 60]):
        ours = run(EXAMPLES / "stdlib_census.py", *arguments, "--output", "ours.svg", cwd=tmp_path)
        theirs = run(on_ray("stdlib_census.py", tmp_path), *arguments, "--output", "theirs.svg", cwd=tmp_path)
        assert without_time(ours.stdout) == without_time(theirs.stdout)
        assert (tmp_path / "ours.svg").read_bytes() == (tmp_path / "theirs.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root", "no-such-folder"], "no-such-folder is not a folder"),
        (["--root", "."], "no Python files"),
        (["--limit", "0"], "--limit: at least 1"),
        (["--limit", "many"], "invalid int value"),
        (["--cpus", "0"], "--cpus: at least 1"),
        (["--output", "no-such-folder/x.svg", "--limit", "1"], "no-such-folder is not a folder"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(arguments, message, tmp_path):
    done = run(EXAMPLES / "stdlib_census.py", *arguments, cwd=tmp_path, expect_code=2)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
