"""No room for objects: the caller gets an error, nothing that is stored is lost, and room that comes back is used."""

import pytest

from tests.faults.scripts import run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]


def test_three_times_the_store_is_written_and_read_back_by_driver_tasks_and_actors():
    run(
        """
        import numpy as np

        ctx = ray.init(num_cpus=2, object_store_memory=80_000_000)
        spilled = os.path.join(ctx.address_info["session_dir"], "spill")

        @ray.remote
        def make(size, value):
            return np.full(size, value, np.uint8)

        @ray.remote
        def check(array, value):
            return array.size > 0 and int(array.min()) == int(array.max()) == value

        @ray.remote
        class Keeper:
            def keep(self):
                self.refs = [ray.put(np.full(10_000_000, 200 + n, np.uint8)) for n in range(6)]
                return self.refs

        put = [ray.put(np.full(10_000_000, value, np.uint8)) for value in range(12)]
        made = [make.remote(10_000_000, value) for value in range(12, 24)]
        small = [ray.put(np.full(300_000, value, np.uint8)) for value in range(50)]
        keeper = Keeper.remote()
        kept = ray.get(keeper.keep.remote())
        refs = [(ref, value) for value, ref in enumerate(put + made)]
        refs += [(ref, value) for value, ref in enumerate(small)]
        refs += [(ref, 200 + n) for n, ref in enumerate(kept)]
        assert os.listdir(spilled)
        for ref, value in refs:
            array = ray.get(ref)
            assert array[0] == array[-1] == value
            assert not array.flags.writeable and not array.flags.owndata
            del array
        assert all(ray.get([check.remote(ref, value) for ref, value in refs], timeout=60))
        assert ray.get(make.remote(200_000_000, 7))[-1] == 7  # larger than the whole store
        del refs, put, made, small, kept, ref, keeper
        wait_for(lambda: not os.listdir(spilled), message=lambda: os.listdir(spilled))
        """
    )


def test_a_disk_over_its_limit_is_an_error_that_loses_nothing_and_room_that_comes_back_is_used():
    run(
        """
        import gc
        import numpy as np
        from miniray.exceptions import OutOfDiskError

        config = {"local_fs_capacity_threshold": 0.0}
        ctx = ray.init(num_cpus=1, object_store_memory=80_000_000, _system_config=config)
        kept = []
        try:
            for value in range(20):
                kept.append(ray.put(np.full(10_000_000, value, np.uint8)))
        except OutOfDiskError as error:
            assert str(error).startswith("Local disk is full")
        assert 6 <= len(kept) <= 8, len(kept)
        for value, ref in enumerate(kept):
            assert ray.get(ref)[0] == value

        @ray.remote(max_retries=0)
        def make(size):
            return np.zeros(size, np.uint8)

        try:
            ray.get(make.remote(60_000_000), timeout=10)
            raise AssertionError("no error")
        except OutOfDiskError:
            pass
        try:
            ray.put(np.zeros(100_000_000, np.uint8))
            raise AssertionError("no error")
        except OutOfDiskError:
            pass
        for value, ref in enumerate(kept):
            assert ray.get(ref)[-1] == value
        assert not os.listdir(os.path.join(ctx.address_info["session_dir"], "spill"))
        # Small values are no business of the store.
        assert ray.get(ray.put(5)) == 5
        del kept, ref
        gc.collect()
        for _ in range(30):
            ref = ray.put(np.zeros(30_000_000, np.uint8))
            assert ray.get(make.remote(20_000_000)).size == 20_000_000
        """
    )


def test_objects_are_spilled_to_a_directory_of_ones_own_and_nothing_stays_there(tmp_path):
    run(
        f"""
        import numpy as np

        where = {str(tmp_path)!r}
        ray.init(num_cpus=1, object_store_memory=80_000_000, object_spilling_directory=where)
        refs = [ray.put(np.full(20_000_000, value, np.uint8)) for value in range(8)]
        (directory,) = os.listdir(where)
        assert directory.startswith("ray_spilled_objects_") and os.listdir(os.path.join(where, directory))
        assert [ray.get(ref)[5] for ref in refs] == list(range(8))
        ray.shutdown()
        assert os.listdir(where) == []
        """
    )


def test_what_a_dead_worker_wrote_is_spilled_and_freed_like_everything_else():
    run(
        """
        import numpy as np

        ctx = ray.init(num_cpus=2, object_store_memory=100_000_000)
        spilled = os.path.join(ctx.address_info["session_dir"], "spill")

        @ray.remote(max_retries=0, num_returns=2)
        def make(value):
            return np.full(10_000_000, value, np.uint8), os.getpid()

        made = [make.remote(value) for value in range(6)]
        refs = [ref for ref, _ in made]
        for pid in set(ray.get([pid for _, pid in made])):
            os.kill(pid, signal.SIGKILL)
        more = [ray.put(np.full(10_000_000, value, np.uint8)) for value in range(6, 12)]
        assert [ray.get(ref)[-1] for ref in refs + more] == list(range(12))
        del refs, more, made
        wait_for(lambda: not os.listdir(spilled), message=lambda: os.listdir(spilled))
        again = [ray.put(np.full(10_000_000, value, np.uint8)) for value in range(8)]
        assert [ray.get(ref)[0] for ref in again] == list(range(8))
        """
    )


def test_a_full_dev_shm_and_a_full_disk_are_an_error_or_a_file_and_never_a_sigbus():
    run(
        """
        import errno
        import numpy as np
        from miniray.exceptions import OutOfDiskError

        ctx = ray.init(num_cpus=1, object_store_memory=500_000_000)
        real = os.posix_fallocate

        def full(fd, offset, size, everywhere=True):
            if everywhere or os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/shm"):
                raise OSError(errno.ENOSPC, "No space left on device")
            real(fd, offset, size)

        os.posix_fallocate = full
        try:
            ray.put(np.ones(20_000_000, np.uint8))
            raise AssertionError("no error")
        except OutOfDiskError as error:
            print(error)
        os.posix_fallocate = lambda fd, offset, size: full(fd, offset, size, False)
        ref = ray.put(np.ones(20_000_000, np.uint8))
        assert ray.get(ref).sum() == 20_000_000  # it went to a file
        os.posix_fallocate = real

        @ray.remote(max_retries=0)
        def make(size):
            def full(fd, offset, size):
                raise OSError(errno.ENOSPC, "No space left on device")

            os.posix_fallocate = full
            return np.ones(size, np.uint8)

        try:
            ray.get(make.remote(20_000_000), timeout=10)
            raise AssertionError("no error")
        except OutOfDiskError as error:
            print(error)
        assert ray.get(ray.put(np.ones(20_000_000, np.uint8))).sum() == 20_000_000
        assert ray.get(ref).sum() == 20_000_000
        """
    )


def test_more_object_store_than_memory_is_refused_or_served_and_does_not_hang():
    run(
        """
        import numpy as np
        try:
            ray.init(num_cpus=1, object_store_memory=10**15)
        except Exception as error:
            assert "memory" in str(error), error
            print("refused:", error)
        else:
            assert ray.get(ray.put(np.ones(1_000_000)))[0] == 1
        """
    )
