"""Ignore patterns, held to what git says of them."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniray.state_machines.ignore_rules import IgnoreRules


@pytest.mark.parametrize(
    ("lines", "left_out", "kept"),
    [
        (["*.log"], ["a.log", "deep/b.log"], ["a.txt"]),
        (["*.log", "!keep.log"], ["a.log"], ["keep.log", "deep/keep.log"]),
        (["/top"], ["top"], ["deep/top"]),
        (["deep/one"], ["deep/one"], ["more/deep/one"]),
        (["a/**/b"], ["a/b", "a/x/b", "a/x/y/b"], ["b"]),
        (["**/b"], ["b", "x/y/b"], ["bb"]),
        (["# comment", "", "   "], [], ["# comment", "a"]),
        (["\\#file", "\\!other"], ["#file", "!other"], []),
        (["file[0-9]"], ["file1"], ["filex"]),
        (["file[!0-9]"], ["filex"], ["file1"]),
        (["a?c"], ["abc"], ["a/c", "ac"]),
        (["name   "], ["name"], ["name   "]),
    ],
    ids=str,
)
def test_a_pattern_fits_as_in_git(lines: list[str], left_out: list[str], kept: list[str]) -> None:
    rules = IgnoreRules(lines)
    assert [bool(rules.verdict(path, False)) for path in left_out] == [True] * len(left_out)
    assert [bool(rules.verdict(path, False)) for path in kept] == [False] * len(kept)


def test_a_slash_at_the_end_is_for_folders() -> None:
    rules = IgnoreRules(["build/"])
    assert rules.verdict("build", True) and rules.verdict("deep/build", True) and not rules.verdict("build", False)


PARTS = st.text(alphabet="ab*?", min_size=1, max_size=3)
PATTERNS = st.builds(
    lambda negated, anchored, parts, folder: negated + anchored + "/".join(parts) + folder,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PARTS | st.just("**"), min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
PATHS = ["a", "b", "ab", "a/a", "a/b", "b/a", "a/b/a", "aa/b", "b/ab/a"]


@settings(max_examples=25)
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=3))
def test_git_agrees(patterns: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("repository")
    if not _git(folder, "init", "-q"):
        pytest.skip("there is no git here")
    (folder / ".gitignore").write_text("\n".join(patterns) + "\n")
    answer = subprocess.run(
        ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", "--stdin"],
        cwd=folder,
        input="\n".join(PATHS),
        capture_output=True,
        text=True,
        check=False,
    )
    rules = IgnoreRules(patterns)

    def left_out(path: str) -> bool:
        parts = path.split("/")
        folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        return any(rules.verdict(each, True) for each in folders) or bool(rules.verdict(path, False))

    assert [path for path in PATHS if left_out(path)] == answer.stdout.split()


def _git(folder: Path, *arguments: str) -> bool:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
