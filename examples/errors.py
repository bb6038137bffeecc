"""Errors are values: what a task raises is kept in its result, and raised where that result is fetched."""

import os
import time

import miniray as ray


class TooHot(Exception):
    def __init__(self, degrees):
        super().__init__(f"{degrees} degrees")
        self.degrees = degrees


@ray.remote
def measure(degrees):
    if degrees > 40:
        raise TooHot(degrees)
    return degrees


@ray.remote
def average(*values):
    return sum(values) / len(values)


@ray.remote(max_retries=3, retry_exceptions=[ConnectionError])
def flaky(path):
    """Fails twice; its attempts are counted in a file."""
    with open(path, "a+") as file:
        file.write("x")
        file.seek(0)
        attempts = len(file.read())
    if attempts < 3:
        raise ConnectionError(f"attempt {attempts}")
    return attempts


@ray.remote(max_retries=0)
def crash():
    os._exit(1)


@ray.remote
def sleep():
    time.sleep(3600)


ray.init()

try:
    ray.get(measure.remote(55))
except TooHot as error:  # the user's own type, and Ray's
    print(f"TooHot: {error.degrees} degrees, also a RayTaskError: {isinstance(error, ray.exceptions.RayTaskError)}")

try:
    ray.get(average.remote(measure.remote(20), measure.remote(60)))
except TooHot as error:  # `average` never ran
    print(f"a task that depends on it fails with the same cause: {type(error.cause).__name__}")

counter = os.path.abspath(f"attempts-{os.getpid()}")
try:
    print(f"worked at attempt {ray.get(flaky.remote(counter))}")
finally:
    os.unlink(counter)

try:
    ray.get(crash.remote())
except ray.exceptions.WorkerCrashedError:
    print("a worker that dies is an error, not a hang")

try:
    ray.get(sleep.remote(), timeout=0.5)
except TimeoutError as error:  # GetTimeoutError is a TimeoutError
    print(f"{type(error).__name__}: the task still runs, but nobody waits for it")

ray.shutdown()
