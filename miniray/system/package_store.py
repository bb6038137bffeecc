"""The packages of a session: copies of directories and archives from which its workers run, each under the hash of its
contents.

They lie in the session directory and end with it; what nobody has used for a while goes earlier, when all together have
grown too large. A package is copied or unpacked beside its place and renamed into it
when it is whole, so that whoever finds it finds all of it; whoever comes second throws his own away.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from miniray.system.disk_usage import folder_size

#: for `PackageStore.add_directory`: path below the source (parts joined by ``/``), is it a folder -> leave it out
Excluded = Callable[[str, bool], bool]
_ARCHIVES = (".zip", ".whl", ".tar.gz", ".tgz", ".tar.xz")
_CHUNK = 1 << 20
#: seconds
_RECENT = 60.0


class PackageTooLargeError(Exception):
    """More bytes than a package may have."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(size)


class PackageStore:
    """The packages of one session.

    Args:
        session_dir: the session's directory.
    """

    def __init__(self, session_dir: str) -> None:
        self._root = os.path.join(session_dir, "runtime_resources")

    def path(self, uri: str, kind: str) -> str:
        """Where the package with this URI is unpacked; `kind` is "working_dir" or "py_modules"."""
        protocol, _, name = uri.partition("://")
        if protocol != "gcs" or "/" in name:
            name = f"{protocol}_{hashlib.sha256(uri.encode()).hexdigest()[:40]}"
        for suffix in _ARCHIVES:
            name = name.removesuffix(suffix)
        return os.path.join(self._root, f"{kind}_files", name)

    def has(self, uri: str, kind: str) -> bool:
        """Whether it is there."""
        return os.path.isdir(self.path(uri, kind))

    def add_directory(
        self, source: str, kind: str, *, excluded: Excluded, inside: str = "", limit: int = 0
    ) -> tuple[str, int]:
        """Copy a directory (or a single file) and return the URI of the copy, and its bytes.

        Args:
            inside: the name of a folder into which the contents go, "" for none.
            limit: the most bytes, 0 for any number.

        Raises:
            PackageTooLargeError: it has more than `limit` bytes.
            OSError: it cannot be read, or the copy not be written.
        """
        with self._building(kind) as place:
            digest = hashlib.sha256(inside.encode())
            size = 0
            base = os.path.join(place, inside)
            os.makedirs(base, exist_ok=True)
            for path, relative, entry in _walk(source, excluded):
                digest.update(f"{relative}\0{stat.S_IMODE(entry.st_mode)}\0".encode("utf-8", "surrogateescape"))
                target = os.path.join(base, relative)
                if stat.S_ISDIR(entry.st_mode):
                    os.makedirs(target, exist_ok=True)
                    continue
                size += entry.st_size
                if limit and size > limit:
                    raise PackageTooLargeError(size)
                with open(path, "rb") as reader, open(target, "wb") as writer:
                    while chunk := reader.read(_CHUNK):
                        digest.update(chunk)
                        writer.write(chunk)
                os.chmod(target, stat.S_IMODE(entry.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
            uri = f"gcs://_ray_pkg_{digest.hexdigest()[:16]}.zip"
            self._settle(place, self.path(uri, kind))
        return uri, size

    def add_archive(self, archive: str, kind: str) -> tuple[str, int]:
        """Unpack a copy of an archive; its URI, and the archive's bytes.

        Raises:
            OSError, ValueError, tarfile.TarError, zipfile.BadZipFile: it cannot be read, or is none.
        """
        digest = hashlib.sha256()
        with open(archive, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        suffix = next((suffix for suffix in _ARCHIVES if archive.endswith(suffix)), ".zip")
        uri = f"gcs://_ray_pkg_{digest.hexdigest()[:40]}{suffix}"
        self.unpack(archive, uri, kind)
        return uri, os.path.getsize(archive)

    def unpack(self, archive: str, uri: str, kind: str, *, strip: bool = False) -> str:
        """Unpack an archive as the package with this URI; where it is then.

        Args:
            strip: a single folder that holds everything is left out, as Ray does with what it downloads.

        Raises:
            as `add_archive`.
        """
        place = self.path(uri, kind)
        if os.path.isdir(place):
            os.utime(place)
            return place
        with self._building(kind) as building:
            _unpack(archive, uri, building)
            inside = os.listdir(building)
            whole = building
            if strip and len(inside) == 1 and os.path.isdir(os.path.join(building, inside[0])):
                whole = os.path.join(building, inside[0])
            self._settle(whole, place)
        return place

    def shrink(self, keep: set[str], limit: int) -> None:
        """Remove the longest unused packages until the rest has no more than `limit` bytes.

        Args:
            keep: paths of those that are needed. What was used within the last minute stays too: a driver that has
                found it may not be known yet.
        """
        found = []
        for folder in os.scandir(self._root) if os.path.isdir(self._root) else ():
            for entry in os.scandir(folder.path) if folder.name.endswith("_files") else ():
                if not entry.name.startswith("."):
                    found.append((entry.stat().st_mtime, folder_size(entry.path), entry.path))
        total = sum(size for _, size, _ in found)
        newest = time.time() - _RECENT
        for used, size, path in sorted(found):
            if total <= limit or used > newest:
                return
            if path not in keep:
                # First out of sight, so that nobody finds half of it.
                hidden = os.path.join(os.path.dirname(path), f".removed-{os.path.basename(path)}")
                os.rename(path, hidden)
                shutil.rmtree(hidden, ignore_errors=True)
                total -= size

    @contextmanager
    def _building(self, kind: str) -> Iterator[str]:
        folder = os.path.join(self._root, f"{kind}_files")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        place = tempfile.mkdtemp(prefix=".building-", dir=folder)
        try:
            os.chmod(place, 0o755)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @staticmethod
    def _settle(building: str, place: str) -> None:
        try:
            os.rename(building, place)
        except OSError:
            if not os.path.isdir(place):  # nobody was faster: it is an error
                raise
        os.utime(place)


def _walk(source: str, excluded: Excluded) -> Iterator[tuple[str, str, os.stat_result]]:
    """Files and folders below `source` in a fixed order: path, path below the source, status. Links are followed."""
    if os.path.isfile(source):
        yield source, os.path.basename(source), os.stat(source)
        return
    pending = [("", frozenset({os.path.realpath(source)}))]
    while pending:
        folder, above = pending.pop()
        for name in sorted(os.listdir(os.path.join(source, folder))):
            relative = f"{folder}/{name}" if folder else name
            path = os.path.join(source, relative)
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue  # a link to nowhere, or gone meanwhile
            is_folder = stat.S_ISDIR(status.st_mode)
            if excluded(relative, is_folder) or not (is_folder or stat.S_ISREG(status.st_mode)):
                continue
            if is_folder:
                real = os.path.realpath(path)
                if real in above:
                    continue  # a link in a circle
                pending.append((relative, above | {real}))
            yield path, relative, status


def _unpack(archive: str, uri: str, place: str) -> None:
    if uri.endswith((".zip", ".whl")):
        import zipfile  # only who has packages pays

        with zipfile.ZipFile(archive) as zip_file:
            for info in zip_file.infolist():
                path = zip_file.extract(info, place)  # inside, whatever its name says
                mode = info.external_attr >> 16 & 0o777
                if mode and not info.is_dir():
                    os.chmod(path, mode | stat.S_IRUSR | stat.S_IWUSR)
        return
    import tarfile

    with tarfile.open(archive) as tar_file:
        if hasattr(tarfile, "data_filter"):
            tar_file.extractall(place, filter="data")
        else:  # 3.10 and 3.11 before the backport
            root = os.path.realpath(place) + os.sep
            for member in tar_file.getmembers():
                target = os.path.realpath(os.path.join(place, member.name)) + os.sep
                if not target.startswith(root) or member.issym() or member.islnk() or member.isdev():
                    raise ValueError(f"{archive} holds {member.name}, which does not stay inside.")
            tar_file.extractall(place)
