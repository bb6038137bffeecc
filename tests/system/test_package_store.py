"""Packages: copies under the hash of their contents, whole or not there."""

import os
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from miniray.system.package_store import PackageStore, PackageTooLargeError


def everything(path, is_folder):
    return False


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "run").write_text("b")
    (folder / "deep" / "run").chmod(0o750)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def store(tmp_path):
    return PackageStore(str(tmp_path / "session"))


def files_of(store, uri, kind="working_dir"):
    root = Path(store.path(uri, kind))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_equal_contents_are_one_package(store, source, tmp_path):
    uri, size = store.add_directory(str(source), "working_dir", excluded=everything)
    assert store.has(uri, "working_dir") and size == 2
    assert store.add_directory(str(source), "working_dir", excluded=everything)[0] == uri
    assert files_of(store, uri) == ["a.txt", "deep", "deep/run", "empty"]
    assert os.stat(os.path.join(store.path(uri, "working_dir"), "deep/run")).st_mode & 0o777 == 0o750
    (source / "a.txt").write_text("other")
    assert store.add_directory(str(source), "working_dir", excluded=everything)[0] != uri
    left = os.listdir(os.path.dirname(store.path(uri, "working_dir")))
    assert len(left) == 2 and not any(name.startswith(".") for name in left)


def test_what_is_excluded_stays_behind(store, source):
    uri, _ = store.add_directory(str(source), "working_dir", excluded=lambda path, is_folder: path == "deep")
    assert files_of(store, uri) == ["a.txt", "empty"]


def test_a_module_lies_in_a_folder_of_its_name(store, source):
    uri, _ = store.add_directory(str(source), "py_modules", excluded=everything, inside="module")
    assert "module/a.txt" in files_of(store, uri, "py_modules")


def test_links_are_followed_and_circles_left_out(store, source):
    (source / "link.txt").symlink_to("a.txt")
    (source / "deep" / "up").symlink_to("..")
    (source / "nowhere").symlink_to("missing")
    uri, _ = store.add_directory(str(source), "working_dir", excluded=everything)
    assert files_of(store, uri) == ["a.txt", "deep", "deep/run", "empty", "link.txt"]


def test_a_folder_with_two_names_is_copied_under_both(store, source):
    (source / "current").symlink_to("deep")  # comes before the folder itself
    (source / "deep" / "again").symlink_to("../empty")
    uri, _ = store.add_directory(str(source), "working_dir", excluded=everything)
    below = ["", "/again", "/run"]
    found = ["a.txt", *(f"{name}{path}" for name in ("current", "deep") for path in below), "empty"]
    assert files_of(store, uri) == found


def test_one_that_is_too_large_leaves_nothing(store, source):
    with pytest.raises(PackageTooLargeError):
        store.add_directory(str(source), "working_dir", excluded=everything, limit=1)
    assert os.listdir(os.path.dirname(store.path("gcs://x.zip", "working_dir"))) == []


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_an_archive_is_unpacked(store, source, tmp_path, suffix):
    archive = tmp_path / f"archive{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.write(source / "a.txt", "top/a.txt")
    else:
        with tarfile.open(archive, "w:" + suffix.rpartition(".")[2]) as file:
            file.add(source / "a.txt", "top/a.txt")
    uri, _ = store.add_archive(str(archive), "working_dir")
    assert uri.endswith(suffix) and files_of(store, uri) == ["top", "top/a.txt"]
    stripped = f"file:///somewhere/archive{suffix}"
    store.unpack(str(archive), stripped, "working_dir", strip=True)
    assert files_of(store, stripped) == ["a.txt"]


def test_an_archive_cannot_write_outside(store, source, tmp_path):
    archive = tmp_path / "bad.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(source / "a.txt", "../../outside.txt")
    with pytest.raises((ValueError, tarfile.TarError)):
        store.add_archive(str(archive), "working_dir")
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_zip_file_with_names_from_outside_is_unpacked_inside(store, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    outside.chmod(0o600)
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in (str(outside), "../../../../outside.txt"):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o777 << 16
            file.writestr(info, "theirs")
    uri, _ = store.add_archive(str(archive), "working_dir")
    assert "outside.txt" in files_of(store, uri)
    assert (outside.read_text(), outside.stat().st_mode & 0o777) == ("mine", 0o600)


def test_the_longest_unused_packages_go_and_needed_ones_stay(store, tmp_path):
    paths = {}
    for age, name in ((4000, "oldest"), (3000, "needed"), (2000, "old"), (0, "new")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_text(name[0] * 100)
        uri, _ = store.add_directory(str(folder), "working_dir", excluded=everything, inside=name)
        paths[name] = store.path(uri, "working_dir")
        os.utime(paths[name], (time.time() - age,) * 2)
    store.shrink({paths["needed"]}, 300)
    assert [name for name, path in paths.items() if os.path.exists(path)] == ["needed", "old", "new"]
    store.shrink({paths["needed"]}, 0)
    assert [name for name, path in paths.items() if os.path.exists(path)] == ["needed", "new"]
    assert not [name for name in os.listdir(os.path.dirname(paths["new"])) if name.startswith(".")]
