"""Where segments lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miniray.system.segment_directory import create_segment_directory


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    for name in ("shm", "session"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "shm"), str(tmp_path / "session")


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="no statvfs")
def test_a_large_shared_memory_is_used_and_says_whose_it_is(folders: tuple[str, str]) -> None:
    shm, session = folders
    path, warning = create_segment_directory("objects", session, 1000, root=shm)
    assert (path, warning) == (os.path.join(shm, "objects"), None)
    assert os.stat(path).st_mode & 0o777 == 0o700
    assert os.readlink(os.path.join(path, ".session")) == session


def test_a_small_shared_memory_is_passed_over_with_a_warning(folders: tuple[str, str]) -> None:
    shm, session = folders
    path, warning = create_segment_directory("objects", session, 1 << 80, root=shm)
    assert path == os.path.join(session, "store")
    assert os.listdir(shm) == []
    assert warning is not None
    assert f"instead of {shm} because {shm} has only" in warning


def test_a_machine_without_shared_memory_uses_files(folders: tuple[str, str]) -> None:
    path, warning = create_segment_directory("objects", folders[1], 1, root="/no/such/folder")
    assert os.path.isdir(path)
    assert warning is not None
    assert "/no/such/folder is not available" in warning
