"""Sessions on disk: where their directories lie, who owns them, how one is found, and how dead ones are swept.

A session of user U is a directory ``<tmp>/miniray-<uid>/s-<8 hex>`` (mode 0700; short, because the path of a socket
ends at 107 bytes) and, for shared memory, ``/dev/shm/miniray-<uid>-<8 hex>``. The head holds an exclusive `flock` on
the file ``lock`` for as long as it lives; the kernel lets go of it however the head dies. So a session whose lock is
free is dead, and whoever starts the next one removes it: that is what cleans up when head, fork server and driver were
all killed at once. The lock of the root (``<tmp>/miniray-<uid>/lock``) is held for the moment in which a directory
exists and its lock is not yet taken.

``head.json`` (0600) is how other drivers find a running head; it is written when the head is ready.

A session that may outlive its head is not swept as long as its fork server waits for another head (`waiting_room`);
``config.json`` says what that has to be like.
"""

from __future__ import annotations

import os
import stat
import time

import msgspec

from miniray.messages.objects import Address
from miniray.messages.startup import HeadConfig
from miniray.system.segment_directory import SHARED_MEMORY, create_segment_directory
from miniray.system.waiting_room import who_waits

_SOCKETS = "k"
_SPILL = "spill"
#: what the name of a directory of spilled objects begins with, outside of the session's (Ray's name for it)
_SPILLED = "ray_spilled_objects_"
_SHM = SHARED_MEMORY
#: bytes that /dev/shm must have free when nobody says how large the object store is to be
LEAST_CAPACITY = 128 << 20
#: longest socket name inside "<root>/s-12345678/k/", and the limit of a path in a sockaddr_un
_LONGEST_ROOT = 107 - len("/s-12345678/k/") - 24
#: Where an address may come from when none is given; the first that is set holds.
_ADDRESS_VARIABLES = ("MINIRAY_ADDRESS", "RAY_ADDRESS")
_HOW_TO_START = "Start one with `miniray start --head`, or call miniray.init() without an address."


class SessionPaths(msgspec.Struct):
    """The directories of one session. `lock_fd` is open only in the process that created it, until the head has it."""

    session_name: str
    directory: str
    store: str
    token: bytes
    lock_fd: int = -1
    warning: str = ""  #: for the user, of what is not as it should be

    @property
    def sockets(self) -> str:
        return os.path.join(self.directory, _SOCKETS)

    @property
    def logs(self) -> str:
        return os.path.join(self.directory, "logs")

    @property
    def spill(self) -> str:
        return os.path.join(self.directory, _SPILL)

    @property
    def config(self) -> str:
        return os.path.join(self.directory, "config.json")

    @property
    def registry(self) -> str:
        return os.path.join(self.directory, "head.json")


class SessionInfo(msgspec.Struct):
    """What ``head.json`` says about a running head."""

    session_name: str
    directory: str
    store: str
    token: bytes
    pid: int
    address: Address
    lifeline: str
    epoch: int
    version: str
    port: int
    private: bool
    start_time: float
    transport: str
    node_id: bytes
    reconnect_s: float = 0.0  #: seconds that its processes wait for another head when this one is gone

    @property
    def gcs_address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def paths(self) -> SessionPaths:
        return SessionPaths(self.session_name, self.directory, self.store, self.token)


def session_root() -> str:
    """The directory of this user's sessions, made with mode 0700 if need be.

    ``MINIRAY_TMPDIR`` or ``TMPDIR`` says under which directory, ``/tmp`` otherwise or when the path would be too long
    for sockets.

    Raises:
        PermissionError: it belongs to somebody else, or others may write to it.
    """
    uid = os.getuid()
    base = os.environ.get("MINIRAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    root = os.path.join(os.path.abspath(base), f"miniray-{uid}")
    if len(os.fsencode(root)) > _LONGEST_ROOT:
        root = f"/tmp/miniray-{uid}"
    _make_private(root)
    return root


def _make_private(path: str) -> None:
    try:
        os.makedirs(path, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{path} is not a directory of this user: remove it, or set MINIRAY_TMPDIR")
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.chmod(path, 0o700)


def create_session(
    root: str | None = None, private: bool = True, capacity: int = LEAST_CAPACITY, spill_to: str = ""
) -> SessionPaths:
    """Make the directories of a new session, and take its lock. Dead sessions of this user are swept first.

    Args:
        root: where; `session_root()` by default. Too long a path for sockets is refused.
        private: only changes nothing on disk; the head's registry file says which it is.
        capacity: bytes of objects for which there must be room in shared memory; else files on disk serve.
        spill_to: a directory on the disk that objects are to be spilled to; "": the session's own.

    Raises:
        ValueError: `root` is too long.
        OSError: the directories cannot be made.
    """
    import fcntl  # not there on Windows, and not needed to import this module

    if root is None:
        root = session_root()
    else:
        root = os.path.abspath(root)
        if len(os.fsencode(root)) > _LONGEST_ROOT:
            raise ValueError(
                f"the session directory {root!r} is too long: the path of a socket in it would exceed 107 bytes; "
                f"choose one of at most {_LONGEST_ROOT} bytes"
            )
        _make_private(root)
    lock = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dead = _condemn(root)
        while True:
            name = os.urandom(4).hex()
            directory = os.path.join(root, f"s-{name}")
            try:
                os.mkdir(directory, 0o700)
                break
            except FileExistsError:
                continue
        fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(lock)
    try:
        for subdirectory in (_SOCKETS, "logs"):
            os.mkdir(os.path.join(directory, subdirectory), 0o700)
        _make_spill_directory(os.path.join(directory, _SPILL), spill_to, name)
        store, warning = create_segment_directory(os.path.basename(_store_path(name)), directory, capacity)
    except BaseException:
        os.close(fd)
        remove_session(directory)
        raise
    for path in dead:
        remove_session(path)
    now = time.time()
    moment = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
    session_name = f"session_{moment}_{int(now * 1e6) % 1_000_000:06}_{os.getpid()}"
    return SessionPaths(session_name, directory, store, os.urandom(32), fd, warning or "")


def _make_spill_directory(path: str, elsewhere: str, name: str) -> None:
    """Where the session's objects are spilled to: a directory, or a link to one on another disk."""
    if not elsewhere:
        os.mkdir(path, 0o700)
        return
    target = os.path.join(os.path.abspath(elsewhere), _SPILLED + name)
    os.symlink(target, path)
    os.makedirs(target, 0o700)


def _store_path(name: str) -> str:
    return os.path.join(_SHM, f"miniray-{os.getuid()}-{name}")


# ---- the end of sessions ----


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it; what is gone already or cannot be removed is passed over. Follows no
    links.
    """
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    try:
                        os.unlink(entry.path)
                    except OSError:
                        pass
        os.rmdir(path)
    except OSError:
        pass


def remove_session(directory: str, store: str = "") -> None:
    """Remove the directories of a dead session."""
    if not store:
        store = _store_path(os.path.basename(directory)[2:])
    # The store first: as long as the session's directory is there, the next sweep finds what is left.
    remove_tree(store)
    spill = os.path.join(directory, _SPILL)
    try:
        elsewhere = os.readlink(spill)
    except OSError:
        pass  # a directory, which goes with the session's
    else:
        if os.path.basename(elsewhere).startswith(_SPILLED):
            remove_tree(elsewhere)
    remove_tree(directory)


def is_alive(directory: str) -> bool:
    """Whether somebody holds the lock of that session."""
    import fcntl

    try:
        fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _condemn(root: str) -> list[str]:
    """Under the lock of the root: rename the directories of dead sessions, and say which they are now."""
    dead = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("x-"):
                dead.append(entry.path)
            elif entry.name.startswith("s-") and not is_alive(entry.path) and who_waits(entry.path) is None:
                doomed = os.path.join(root, "x-" + entry.name[2:])
                try:
                    os.rename(entry.path, doomed)
                except OSError:
                    continue
                dead.append(doomed)
    return dead


def sweep(root: str | None = None) -> int:
    """Remove all dead sessions of this user, and stores whose session is dead or gone; the number of them."""
    import fcntl

    root = root or session_root()
    lock = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dead = _condemn(root)
    finally:
        os.close(lock)
    for path in dead:
        remove_session(path)
    return len(dead) + _sweep_stores()


def _sweep_stores() -> int:
    count = 0
    prefix = f"miniray-{os.getuid()}-"
    try:
        names = [name for name in os.listdir(_SHM) if name.startswith(prefix)]
    except OSError:
        return 0
    for name in names:
        store = os.path.join(_SHM, name)
        try:
            directory = os.readlink(os.path.join(store, ".session"))
            # The session may be of another root, where nobody may ever sweep; its objects take up memory until then.
            if not (os.path.isdir(directory) and (is_alive(directory) or who_waits(directory) is not None)):
                remove_tree(store)
                count += 1
        except OSError:
            continue
    return count


# ---- sessions whose head is gone ----


def waiting_sessions(root: str | None = None) -> list[tuple[SessionInfo, int]]:
    """The sessions of this user whose processes wait for another head, and the process to ask to wait no longer; the
    newest first.
    """
    found = []
    root = root or session_root()
    try:
        names = [name for name in os.listdir(root) if name.startswith("s-")]
    except OSError:
        return []
    for name in names:
        directory = os.path.join(root, name)
        pid = None if is_alive(directory) else who_waits(directory)
        info = _read_info(directory)
        if pid and info is not None:
            found.append((info, pid))
    found.sort(key=lambda item: item[0].start_time, reverse=True)
    return found


def take_over(info: SessionInfo) -> SessionPaths | None:
    """Take the lock of a session whose head is gone; None: somebody else was faster."""
    import fcntl

    paths = info.paths
    try:
        fd = os.open(os.path.join(paths.directory, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    paths.lock_fd = fd
    return paths


def write_config(paths: SessionPaths, config: HeadConfig) -> None:
    """Keep what a head is to be like, for another one that takes its place."""
    with open(os.open(paths.config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(config))


def read_config(paths: SessionPaths) -> HeadConfig:
    """What `write_config` has kept."""
    with open(paths.config, "rb") as file:
        return msgspec.json.decode(file.read(), type=HeadConfig)


# ---- finding a running one ----


def write_registry(info: SessionInfo) -> None:
    """Announce a running head; whoever reads it sees the whole file or none."""
    path = info.paths.registry
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, msgspec.json.encode(info))
    finally:
        os.close(fd)
    os.replace(temporary, path)


def read_registry(directory: str) -> SessionInfo | None:
    """What a running head says about itself, None if there is none in that directory."""
    info = _read_info(directory)
    return info if info is not None and is_alive(directory) else None


def _read_info(directory: str) -> SessionInfo | None:
    try:
        with open(os.path.join(directory, "head.json"), "rb") as file:
            return msgspec.json.decode(file.read(), type=SessionInfo)
    except (OSError, msgspec.DecodeError):
        return None


def running_sessions(root: str | None = None) -> list[SessionInfo]:
    """All sessions of this user that have a head, the newest first."""
    found = []
    try:
        names = os.listdir(root or session_root())
    except OSError:
        return []
    for name in names:
        if name.startswith("s-"):
            info = read_registry(os.path.join(root or session_root(), name))
            if info is not None:
                found.append(info)
    found.sort(key=lambda info: info.start_time, reverse=True)
    return found


def environment_address() -> tuple[str, str]:
    """The variable that names a session, and what it says; "" and "" if none does."""
    for variable in _ADDRESS_VARIABLES:
        named = os.environ.get(variable)
        if named:
            return variable, named
    return "", ""


def find_session(address: str | None, root: str | None = None, timeout: float = 1.0) -> SessionInfo | None:
    """The running session that an address means.

    Args:
        address: None or "": this user's newest shared head, if any. "auto": the same, but there must be one. "local":
            none. Else a session name, the id or path of a session directory, ``127.0.0.1:PORT``, ``localhost:PORT`` or
            ``ray://...:PORT``.
        timeout: seconds to wait for a head that is just starting.

    Returns:
        What its registry file says; None when a new session is to be started.

    Raises:
        ConnectionError: there is no such session; says what was tried, and how to start one.
    """
    if address == "local":
        return None
    if not address:
        return next((info for info in running_sessions(root) if not info.private), None)
    deadline = time.monotonic() + timeout
    while True:
        sessions = running_sessions(root)
        for info in sessions:
            if _matches(address, info):
                return info
        if time.monotonic() >= deadline or not _being_started(root):
            break
        time.sleep(0.02)
    raise ConnectionError(_not_found(address, sessions, root or session_root()))


def _matches(address: str, info: SessionInfo) -> bool:
    if address == "auto":
        return not info.private
    text = address.rstrip("/")
    if text.startswith("ray://"):
        text = text[len("ray://") :]
    host, separator, port = text.rpartition(":")
    if separator and port.isdigit() and not os.path.isabs(text):
        return int(port) == info.port and _is_this_machine(host)
    directory = os.path.basename(info.directory)
    return text in (info.session_name, info.directory, directory, directory[2:])


def _is_this_machine(host: str) -> bool:
    if host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "::1"):
        return True
    import socket  # rarely needed

    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(socket.gethostname(), None)}
        return host == socket.gethostname() or host in addresses
    except OSError:
        return False


def _being_started(root: str | None) -> bool:
    """Whether a session is locked, but its head has not announced itself yet."""
    root = root or session_root()
    try:
        names = [name for name in os.listdir(root) if name.startswith("s-")]
    except OSError:
        return False
    paths = [os.path.join(root, name) for name in names]
    return any(not os.path.exists(os.path.join(path, "head.json")) and is_alive(path) for path in paths)


def _not_found(address: str, sessions: list[SessionInfo], root: str) -> str:
    if address == "auto":
        problem = (
            "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag "
            "or `RAY_ADDRESS` environment variable."
        )
        problem += f" (Looked for a shared head of this user in {root}.)"
    else:
        problem = (
            f"Failed to connect to a session at {address!r}: looked for a running head of this user with that name, "
            f"directory or port in {root}"
        )
        if sessions:
            known = ", ".join(f"{info.gcs_address} ({info.session_name})" for info in sessions)
            problem += f"; running: {known}."
        else:
            problem += "; none is running."
    return f"{problem} {_HOW_TO_START}"
