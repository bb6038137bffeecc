"""Sessions on disk: private to their user, locked while they live, swept when they are dead."""

import os
import stat

import pytest

from miniray.messages.objects import Address
from miniray.system import session


@pytest.fixture
def root(tmp_path_factory):
    # pytest's own directories are too deep for sockets.
    path = f"{os.environ['MINIRAY_TMPDIR']}/r{tmp_path_factory.mktemp('x').name[-1]}{os.urandom(2).hex()}"
    os.mkdir(path, 0o700)
    yield path
    session.sweep(path)
    session.remove_tree(path)


def end(paths):
    """Die, as far as others can tell."""
    os.close(paths.lock_fd)


def announce(paths, **changes):
    fields = {
        "session_name": paths.session_name,
        "directory": paths.directory,
        "store": paths.store,
        "token": paths.token,
        "pid": os.getpid(),
        "address": Address(b"h" * 28, "ipc://x"),
        "lifeline": "x",
        "epoch": 1,
        "version": "1",
        "port": 4321,
        "private": False,
        "start_time": 1.0,
        "transport": "ipc",
        "node_id": b"n" * 28,
        **changes,
    }
    info = session.SessionInfo(**fields)
    session.write_registry(info)
    return info


def test_directories_are_private_and_short(root):
    paths = session.create_session(root)
    for path in (paths.directory, paths.sockets, paths.logs, paths.spill, paths.store):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert len(os.path.join(paths.sockets, "d1234567-1234567")) <= 107
    assert paths.session_name.startswith("session_2")
    assert paths.session_name.endswith(f"_{os.getpid()}")
    end(paths)


def test_two_sessions_have_different_names_directories_and_tokens(root):
    first, second = session.create_session(root), session.create_session(root)
    assert first.directory != second.directory
    assert first.store != second.store
    assert first.token != second.token
    end(first)
    end(second)


def test_a_dead_session_is_swept_by_the_next_one(root):
    dead = session.create_session(root)
    with open(os.path.join(dead.store, "segment"), "wb") as file:
        file.write(b"x")
    end(dead)
    living = session.create_session(root)
    assert not os.path.exists(dead.directory)
    assert not os.path.exists(dead.store)
    assert os.path.exists(living.directory)
    end(living)


def test_a_living_session_is_not_swept(root):
    living = session.create_session(root)
    assert session.sweep(root) == 0
    assert session.is_alive(living.directory)
    end(living)
    assert session.sweep(root) == 1
    assert not session.is_alive(living.directory)


def test_a_store_without_its_session_is_swept(root):
    paths = session.create_session(root)
    end(paths)
    session.remove_tree(paths.directory)
    session.sweep(root)
    assert not os.path.exists(paths.store)


def test_removing_a_tree_follows_no_link(root):
    kept, doomed = os.path.join(root, "kept"), os.path.join(root, "doomed")
    os.makedirs(os.path.join(doomed, "deep"))
    os.mkdir(kept)
    os.symlink(kept, os.path.join(doomed, "deep", "link"))
    session.remove_tree(doomed)
    assert os.path.isdir(kept)
    assert not os.path.exists(doomed)
    session.remove_tree(doomed)


def test_a_path_that_is_too_long_for_sockets_is_refused(root):
    with pytest.raises(ValueError, match="too long"):
        session.create_session(os.path.join(root, "x" * 100))


def test_a_root_in_too_deep_a_place_goes_elsewhere(monkeypatch, root):
    monkeypatch.setenv("MINIRAY_TMPDIR", os.path.join(root, "y" * 80))
    assert session.session_root() == f"/tmp/miniray-{os.getuid()}"


def test_a_root_that_is_no_directory_is_refused(monkeypatch, root):
    monkeypatch.setenv("MINIRAY_TMPDIR", root)
    with open(os.path.join(root, f"miniray-{os.getuid()}"), "w"):
        pass
    with pytest.raises(PermissionError, match="not a directory of this user"):
        session.session_root()


def test_a_root_that_others_may_enter_is_closed(monkeypatch, root):
    monkeypatch.setenv("MINIRAY_TMPDIR", root)
    os.makedirs(os.path.join(root, f"miniray-{os.getuid()}"), 0o755)
    assert stat.S_IMODE(os.stat(session.session_root()).st_mode) == 0o700


def test_a_registry_counts_only_while_the_lock_is_held(root):
    paths = session.create_session(root)
    assert session.read_registry(paths.directory) is None
    info = announce(paths)
    assert session.read_registry(paths.directory) == info
    assert stat.S_IMODE(os.stat(paths.registry).st_mode) == 0o600
    end(paths)
    assert session.read_registry(paths.directory) is None


def test_a_damaged_registry_is_none(root):
    paths = session.create_session(root)
    with open(paths.registry, "wb") as file:
        file.write(b'{"pid": ')
    assert session.read_registry(paths.directory) is None
    end(paths)


def test_without_an_address_the_newest_shared_head_is_meant(root):
    old, new, private = (session.create_session(root) for _ in range(3))
    announce(old, start_time=1.0)
    newest = announce(new, start_time=2.0)
    announce(private, start_time=3.0, private=True)
    assert session.find_session(None, root) == newest
    assert session.find_session("auto", root) == newest
    assert session.find_session("local", root) is None
    for paths in (old, new, private):
        end(paths)


def test_without_a_head_no_address_means_a_new_session_and_auto_is_an_error(root):
    assert session.find_session(None, root) is None
    with pytest.raises(ConnectionError, match=r"Could not find any running Ray instance.*miniray start --head"):
        session.find_session("auto", root)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:4321", "localhost:4321", "ray://127.0.0.1:4321", "ray://localhost:4321/"]
)
def test_a_port_is_found_however_it_is_written(root, address):
    paths = session.create_session(root)
    info = announce(paths)
    assert session.find_session(address, root) == info
    end(paths)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://192.0.2.1:4321", "nothing", "/nowhere", "127.0.0.1"])
def test_an_address_without_a_head_is_an_error_that_names_those_that_run(root, address):
    paths = session.create_session(root)
    announce(paths)
    with pytest.raises(ConnectionError, match="running: 127.0.0.1:4321"):
        session.find_session(address, root)
    end(paths)
