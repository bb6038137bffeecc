"""What this machine offers, compared with psutil; and how memory is shared as Ray shares it."""

import os

import psutil

from miniray.system import blas_threads, limits, machine


def test_there_are_as_many_cpus_as_this_process_may_use():
    assert 1 <= machine.cpu_count() <= (os.cpu_count() or 1)


def test_free_memory_is_some_and_no_more_than_all():
    assert 0 < machine.free_memory() <= psutil.virtual_memory().total


def test_a_third_of_the_memory_is_for_objects_unless_asked_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    assert machine.default_memory(str(tmp_path), None) == (700, 300)
    assert machine.default_memory(str(tmp_path), 100) == (900, 100)


def test_the_store_is_no_larger_than_its_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 60)
    room = os.statvfs(tmp_path)
    assert machine.default_memory(str(tmp_path), None)[1] <= room.f_bavail * room.f_frsize


def test_the_file_limit_never_sinks():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    after = limits.raise_file_limit()
    assert after >= min(before, 65536)
    assert limits.raise_file_limit() == after
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_the_libraries_that_numpy_loaded_can_be_told():
    numpy = __import__("pytest").importorskip("numpy")
    numpy.ones((2, 2)) @ numpy.ones((2, 2))
    assert blas_threads.set_threads(1) <= len(blas_threads.loaded_libraries())
