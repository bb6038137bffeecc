"""`util.multiprocessing`: what programs import in the place of `multiprocessing`."""

from multiprocessing import JoinableQueue, TimeoutError

from miniray.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
