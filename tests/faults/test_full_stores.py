"""No room for objects: the caller gets an error, nothing that is stored is lost, and room that comes back is used."""

import pytest

from tests.faults.scripts import run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]


def test_an_object_store_that_is_full_says_so_and_takes_more_when_there_is_room():
    run(
        """
        import gc
        import numpy as np
        from miniray.exceptions import ObjectStoreFullError

        ray.init(num_cpus=1, object_store_memory=80_000_000)
        kept = []
        try:
            for value in range(20):
                kept.append(ray.put(np.full(10_000_000, value, np.uint8)))
        except ObjectStoreFullError:
            pass
        assert 5 <= len(kept) <= 8, len(kept)
        for value, ref in enumerate(kept):
            assert ray.get(ref)[0] == value

        @ray.remote(max_retries=0)
        def make(size):
            return np.zeros(size, np.uint8)

        try:
            ray.get(make.remote(60_000_000), timeout=10)
            raise AssertionError("no error")
        except ObjectStoreFullError:
            pass
        try:
            ray.put(np.zeros(100_000_000, np.uint8))
            raise AssertionError("no error")
        except ObjectStoreFullError:
            pass
        # Small values are no business of the store.
        assert ray.get(ray.put(5)) == 5
        del kept
        gc.collect()
        for _ in range(30):
            ref = ray.put(np.zeros(30_000_000, np.uint8))
            assert ray.get(make.remote(20_000_000)).size == 20_000_000
        """
    )


def test_a_full_dev_shm_is_an_error_or_a_file_and_never_a_sigbus():
    run(
        """
        import errno
        import numpy as np
        from miniray.exceptions import ObjectStoreFullError

        ray.init(num_cpus=1, object_store_memory=500_000_000)
        real = os.posix_fallocate

        def full(fd, offset, size):
            raise OSError(errno.ENOSPC, "No space left on device")

        os.posix_fallocate = full
        try:
            ref = ray.put(np.ones(20_000_000, np.uint8))
            assert ray.get(ref).sum() == 20_000_000  # it went to a file
        except ObjectStoreFullError as error:
            print(error)

        @ray.remote(max_retries=0)
        def make(size):
            def full(fd, offset, size):
                raise OSError(errno.ENOSPC, "No space left on device")

            os.posix_fallocate = full
            return np.ones(size, np.uint8)

        try:
            assert ray.get(make.remote(20_000_000), timeout=10).sum() == 20_000_000
        except ObjectStoreFullError as error:
            print(error)
        os.posix_fallocate = real
        assert ray.get(ray.put(np.ones(20_000_000, np.uint8))).sum() == 20_000_000
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
