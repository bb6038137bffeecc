"""Cancelling: queued, running, waiting, finished tasks; their children and dependents; calls of actors."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ..catalog import program
from ..observe import gone, outcome, until

AREA = "cancel"
SESSION = {"num_cpus": 2}
PATIENCE = 20


def canceled(ray, ref, text=True):
    """How get answers for a ref whose task was cancelled: the first and last lines, and whether they name the task.

    `text=False`: without these. What Ray says of a task that has not begun, or that `force` ended, is nothing.
    """
    answer = outcome(lambda: ray.get(ref, timeout=PATIENCE), text="full" if text else "none")
    if "text" in answer:
        lines = answer.pop("text").strip().splitlines() or [""]
        answer["says"] = [lines[0], lines[-1], ref.task_id().hex() in lines[-1]]
    return answer


def submitted(seconds=0.3):
    """Lets a task that was just submitted get to where it waits: a cancel that overtakes it may end Ray's driver."""
    time.sleep(seconds)


def begun(path):
    """Waits until a task has said that it runs."""
    return until(Path(path).exists)


def doze(seconds=30):
    """Sleeps a little at a time: on Ray the interrupt does not end a sleep, but comes after it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def busy(path, seconds=30):
    """Says that it runs, and takes its time."""
    Path(path).touch()
    doze(seconds)
    return "slept"


@program("cancel/queued")
def queued_tasks_never_run(ray):
    with TemporaryDirectory() as folder:
        first = ray.remote(num_cpus=2)(busy).remote(f"{folder}/first")
        begun(f"{folder}/first")
        queued = [ray.remote(busy).remote(f"{folder}/queued{number}", 0) for number in range(3)]
        submitted()
        for ref in queued:
            ray.cancel(ref)
        answers = [canceled(ray, ref, text=False) for ref in queued]
        ray.cancel(first)
        answers.append(canceled(ray, first))
        ray.get(ray.remote(num_cpus=2)(lambda: None).remote())
        return [answers, os.listdir(folder)]


@program("cancel/running")
def running_tasks_are_interrupted(ray):
    @ray.remote
    def tidy(folder):
        try:
            Path(folder, "begun").touch()
            doze(30)
        except BaseException as error:
            Path(folder, "caught").write_text(type(error).__name__)
            raise
        finally:
            Path(folder, "finally").touch()

    with TemporaryDirectory() as folder:
        ref = tidy.remote(folder)
        begun(f"{folder}/begun")
        returned = ray.cancel(ref)
        answer = canceled(ray, ref)
        return [returned, answer, begun(f"{folder}/finally"), Path(folder, "caught").read_text()]


@program("cancel/running")
def loops_are_interrupted(ray):
    @ray.remote
    def spin(path):
        Path(path).touch()
        while True:
            pass

    with TemporaryDirectory() as folder:
        ref = spin.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return [canceled(ray, ref), ray.get(ray.remote(lambda: "still there").remote())]


@program("cancel/running")
def tasks_that_catch_the_interrupt(ray):
    @ray.remote
    def stubborn(path):
        try:
            Path(path).touch()
            doze(30)
        except KeyboardInterrupt:
            return "caught"

    with TemporaryDirectory() as folder:
        ref = stubborn.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return outcome(lambda: ray.get(ref, timeout=PATIENCE), text="none")


@program("cancel/running")
def tasks_that_raise_when_interrupted(ray):
    @ray.remote
    def stubborn(path):
        try:
            Path(path).touch()
            doze(30)
        except KeyboardInterrupt:
            raise ValueError("instead") from None

    with TemporaryDirectory() as folder:
        ref = stubborn.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return outcome(lambda: ray.get(ref, timeout=PATIENCE), text="last")


@program("cancel/running")
def tasks_blocked_in_get_are_interrupted(ray):
    @ray.remote
    def blocked(box, path):
        Path(path).touch()
        return ray.get(box[0])

    with TemporaryDirectory() as folder:
        long = ray.remote(busy).remote(f"{folder}/long")
        begun(f"{folder}/long")
        ref = blocked.remote([long], f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        answers = [canceled(ray, ref)]
        ray.cancel(long)
        return [*answers, canceled(ray, long)]


@program("cancel/running")
def tasks_blocked_in_wait_are_interrupted(ray):
    @ray.remote
    def blocked(box, path):
        Path(path).touch()
        return len(ray.wait(box)[0])

    with TemporaryDirectory() as folder:
        long = ray.remote(busy).remote(f"{folder}/long")
        begun(f"{folder}/long")
        ref = blocked.remote([long], f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        answer = canceled(ray, ref)
        ray.cancel(long)
        return answer


@program("cancel/running", "cancel/queued")
def every_return_of_a_cancelled_task(ray):
    with TemporaryDirectory() as folder:
        refs = ray.remote(num_returns=2)(busy).remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(refs[1])
        return [canceled(ray, ref) for ref in refs]


@program("cancel/running")
def cancelling_twice(ray):
    with TemporaryDirectory() as folder:
        ref = ray.remote(busy).remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        first = canceled(ray, ref)
        return [first, ray.cancel(ref), canceled(ray, ref) == first]


@program("cancel/running", "cancel/force")
def cancelled_tasks_are_not_retried(ray):
    def note(path, wait):
        with open(path, "a") as file:
            file.write("run\n")
        doze(wait)

    answers = []
    with TemporaryDirectory() as folder:
        for force in (False, True):
            path = f"{folder}/{force}"
            ref = ray.remote(max_retries=3, retry_exceptions=True)(note).remote(path, 30)
            begun(path)
            ray.cancel(ref, force=force)
            answers.append(outcome(lambda ref=ref: ray.get(ref, timeout=PATIENCE), text="none"))
            ray.get(ray.remote(lambda: None).remote())
            answers.append(Path(path).read_text().count("run"))
    return answers


@program("cancel/force")
def force_kills_the_worker(ray):
    def stuck(path):
        Path(path).write_text(str(os.getpid()))
        while True:
            try:
                doze(30)
            except KeyboardInterrupt:
                pass

    with TemporaryDirectory() as folder:
        ref = ray.remote(stuck).remote(f"{folder}/begun")
        until(lambda: Path(f"{folder}/begun").exists() and Path(f"{folder}/begun").read_text())
        pid = int(Path(f"{folder}/begun").read_text())
        ray.cancel(ref, force=True)
        answer = canceled(ray, ref, text=False)
        return [answer, until(lambda: gone(pid)), ray.get(ray.remote(lambda: "still there").remote())]


@program("cancel/force", "cancel/queued")
def forced_cancels_of_tasks_that_have_not_begun(ray):
    with TemporaryDirectory() as folder:
        first = ray.remote(num_cpus=2)(busy).remote(f"{folder}/first")
        begun(f"{folder}/first")
        queued = ray.remote(busy).remote(f"{folder}/queued", 0)
        submitted()
        ray.cancel(queued, force=True)
        answers = [canceled(ray, queued, text=False)]
        ray.cancel(first, force=True)
        return [*answers, outcome(lambda: ray.get(first, timeout=PATIENCE), text="none")]


@program("cancel/dependencies")
def tasks_that_wait_for_arguments(ray):
    with TemporaryDirectory() as folder:
        gate = ray.remote(until).remote(Path(folder, "go").exists)
        chained = ray.remote(lambda value: value).remote(gate)
        last = ray.remote(lambda value: value).remote(chained)
        submitted()
        ray.cancel(chained)
        answers = [canceled(ray, chained, text=False), canceled(ray, last, text=False), ray.wait([gate], timeout=0)[0]]
        # To its end: when what a cancelled task waits for is cancelled, too, Ray's driver may crash.
        Path(folder, "go").touch()
        return [*answers, ray.get(gate)]


@program("cancel/finished")
def finished_tasks_keep_their_value(ray):
    done = ray.remote(lambda: "done").remote()
    failed = ray.remote(lambda: 1 / 0).remote()
    ray.wait([done, failed], num_returns=2)
    return [
        ray.cancel(done),
        ray.cancel(done, force=True),
        ray.get(done),
        ray.cancel(failed),
        outcome(lambda: ray.get(failed), text="last"),
    ]


@program("cancel/finished")
def what_cannot_be_cancelled(ray):
    return [
        outcome(lambda: ray.cancel("text")),
        outcome(lambda: ray.cancel(None)),
        outcome(lambda: ray.cancel([ray.put(1)])),
        outcome(lambda: ray.cancel(ray.put(1)), text="first"),
        outcome(lambda: ray.cancel(ray.put(1), True)),
    ]


@program("cancel/dependents")
def dependents_of_cancelled_tasks(ray):
    with TemporaryDirectory() as folder:
        long = ray.remote(busy).remote(f"{folder}/long")
        begun(f"{folder}/long")

        @ray.remote
        def after(value):
            return value

        dependent = after.remote(long)
        second = after.remote(dependent)
        ray.cancel(long)
        answers = [canceled(ray, long)]
        for ref in (dependent, second):
            try:
                ray.get(ref, timeout=PATIENCE)
            except Exception as error:
                answers.append(
                    [
                        isinstance(error, ray.exceptions.RayTaskError),
                        isinstance(error, ray.exceptions.TaskCancelledError),
                        type(error).__name__,
                        type(error.cause).__name__,
                        [line for line in str(error).splitlines() if "cancelled" in line],
                    ]
                )
        return answers


@program("cancel/recursive")
def children_are_cancelled_too(ray):
    @ray.remote
    def child(folder):
        try:
            Path(folder, "child").touch()
            doze(30)
        except KeyboardInterrupt:
            Path(folder, "child interrupted").touch()
            raise

    @ray.remote
    def middle(folder):
        return ray.get(child.remote(folder))

    @ray.remote
    def parent(folder):
        return ray.get(middle.remote(folder))

    with TemporaryDirectory() as folder:
        ref = parent.remote(folder)
        begun(f"{folder}/child")
        ray.cancel(ref)
        return [canceled(ray, ref), begun(f"{folder}/child interrupted")]


@program("cancel/recursive")
def children_are_left_alone_if_asked(ray):
    @ray.remote
    def child(folder):
        Path(folder, "child").touch()
        until(Path(folder, "go on").exists)
        Path(folder, "child done").touch()

    @ray.remote
    def parent(folder):
        return ray.get(child.remote(folder))

    with TemporaryDirectory() as folder:
        ref = parent.remote(folder)
        begun(f"{folder}/child")
        ray.cancel(ref, recursive=False)
        answer = canceled(ray, ref)
        Path(folder, "go on").touch()
        return [answer, begun(f"{folder}/child done")]


@program("cancel/recursive")
def children_that_are_queued(ray):
    @ray.remote
    def child(path):
        Path(path).touch()

    @ray.remote(num_cpus=2)
    def parent(folder):
        refs = [child.options(num_cpus=2).remote(f"{folder}/child{number}") for number in range(3)]
        Path(folder, "parent").touch()
        doze(30)
        return refs

    with TemporaryDirectory() as folder:
        ref = parent.remote(folder)
        begun(f"{folder}/parent")
        ray.cancel(ref)
        answer = canceled(ray, ref)
        ray.get(ray.remote(num_cpus=2)(lambda: None).remote())
        return [answer, sorted(os.listdir(folder))]


@program("cancel/borrower")
def whoever_holds_the_ref_may_cancel(ray):
    @ray.remote(num_cpus=0)
    def end(box):
        ray.cancel(box[0])

    with TemporaryDirectory() as folder:
        ref = ray.remote(busy).remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.get(end.remote([ref]))
        return canceled(ray, ref)


@program("cancel/borrower")
def the_driver_cancels_what_a_task_started(ray):
    @ray.remote
    def start(path):
        return [ray.remote(busy).remote(path)]

    with TemporaryDirectory() as folder:
        (ref,) = ray.get(start.remote(f"{folder}/begun"))
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return canceled(ray, ref)


@program("cancel/queued")
def many_pending_tasks(ray):
    with TemporaryDirectory() as folder:
        first = ray.remote(num_cpus=2)(busy).remote(f"{folder}/first")
        begun(f"{folder}/first")
        refs = [ray.remote(lambda number: number).remote(number) for number in range(200)]
        submitted()
        for ref in refs[::2]:
            ray.cancel(ref)
        kinds = {outcome(lambda ref=ref: ray.get(ref, timeout=PATIENCE), text="none")["raises"] for ref in refs[::2]}
        ray.cancel(first)
        return [sorted(kinds), ray.get(refs[1::2]) == list(range(1, 200, 2))]


# ---- actors ----


class Sleeper:
    """A plain actor whose methods take their time."""

    def nap(self, path, seconds=30):
        return busy(path, seconds)

    def get(self):
        return "there"


@program("cancel/actor-tasks")
def queued_calls_of_actors(ray):
    sleeper = ray.remote(Sleeper).remote()
    with TemporaryDirectory() as folder:
        running = sleeper.nap.remote(f"{folder}/first", 1)
        begun(f"{folder}/first")
        queued = sleeper.nap.remote(f"{folder}/second", 0)
        submitted()
        ray.cancel(queued)
        # Later calls would be of no use here: on Ray they may wait 30 seconds for the one that was cancelled.
        return [canceled(ray, queued), ray.get(running)]


@program("cancel/actor-tasks")
def calls_that_raise_though_cancelled(ray):
    class Raises:
        def fail(self, path):
            Path(path).touch()
            until(lambda: ray.get_runtime_context().is_canceled())
            raise ValueError("though cancelled")

    actors = [ray.remote(Raises).remote(), ray.remote(max_concurrency=2)(Raises).remote()]
    answers = []
    for actor in actors:
        with TemporaryDirectory() as folder:
            ref = actor.fail.remote(f"{folder}/begun")
            begun(f"{folder}/begun")
            ray.cancel(ref)
            answers.append(canceled(ray, ref))
    return answers


@program("cancel/actor-tasks")
def running_calls_of_plain_actors(ray):
    class Looks:
        def look(self, path):
            Path(path).touch()
            seen = until(lambda: ray.get_runtime_context().is_canceled())
            Path(path + " seen").write_text(str(seen))
            return "looked"

        def get(self):
            return ray.get_runtime_context().is_canceled()

    actor = ray.remote(Looks).remote()
    with TemporaryDirectory() as folder:
        ref = actor.look.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return [canceled(ray, ref), ray.get(actor.get.remote()), Path(folder, "begun seen").read_text()]


@program("cancel/actor-tasks")
def running_calls_of_threaded_actors(ray):
    class Looks:
        def look(self, path):
            Path(path).touch()
            Path(path + " seen").write_text(str(until(lambda: ray.get_runtime_context().is_canceled())))
            return "looked"

        def get(self):
            return ray.get_runtime_context().is_canceled()

    actor = ray.remote(max_concurrency=2)(Looks).remote()
    with TemporaryDirectory() as folder:
        ref = actor.look.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        other = ray.get(actor.get.remote())
        ray.cancel(ref)
        return [other, canceled(ray, ref), until(lambda: Path(folder, "begun seen").exists())]


@program("cancel/actor-tasks")
def calls_of_async_actors(ray):
    class Waits:
        def __init__(self):
            self.seen = []

        async def wait(self, path):
            try:
                Path(path).touch()
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise
            finally:
                self.seen.append("finally")

        async def get(self):
            return self.seen

        async def asks(self):
            return ray.get_runtime_context().is_canceled()

    actor = ray.remote(Waits).remote()
    with TemporaryDirectory() as folder:
        ref = actor.wait.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        answer = canceled(ray, ref)
        return [answer, ray.get(actor.get.remote()), outcome(lambda: ray.get(actor.asks.remote()), text="last")]


@program("cancel/actor-tasks")
def queued_calls_of_async_actors(ray):
    class Serial:
        async def wait(self, path, seconds):
            Path(path).touch()
            await asyncio.sleep(seconds)
            return "waited"

    actor = ray.remote(max_concurrency=1)(Serial).remote()
    with TemporaryDirectory() as folder:
        first = actor.wait.remote(f"{folder}/first", 0.5)
        begun(f"{folder}/first")
        second = actor.wait.remote(f"{folder}/second", 0)
        third = actor.wait.remote(f"{folder}/third", 0)
        submitted(0.1)
        ray.cancel(second)
        return [canceled(ray, second), ray.get([first, third]), sorted(os.listdir(folder))]


@program("cancel/actor-tasks")
def coroutines_that_swallow_the_cancel(ray):
    class Swallows:
        async def wait(self, path):
            try:
                Path(path).touch()
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return "swallowed"

    actor = ray.remote(Swallows).remote()
    with TemporaryDirectory() as folder:
        ref = actor.wait.remote(f"{folder}/begun")
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return outcome(lambda: ray.get(ref, timeout=PATIENCE), text="none")


@program("cancel/actor-tasks")
def coroutines_that_await_a_task(ray):
    class Waits:
        async def wait(self, folder):
            return await ray.remote(child).remote(folder)

    def child(folder):
        try:
            Path(folder, "child").touch()
            doze(30)
        except KeyboardInterrupt:
            Path(folder, "interrupted").touch()
            raise

    actor = ray.remote(Waits).remote()
    with TemporaryDirectory() as folder:
        ref = actor.wait.remote(folder)
        begun(f"{folder}/child")
        ray.cancel(ref)
        answer = canceled(ray, ref)
        # Whether the call's id or that of the task it awaits is the last on Ray is chance.
        return [answer["raises"], answer["says"][0], begun(f"{folder}/interrupted")]


@program("cancel/actor-tasks", "cancel/recursive")
def calls_that_a_task_made(ray):
    class Waits:
        async def wait(self, folder):
            try:
                Path(folder, "begun").touch()
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                Path(folder, "cancelled").touch()
                raise

    @ray.remote
    def calls(handle, folder):
        return ray.get(handle.wait.remote(folder))

    actor = ray.remote(Waits).remote()
    with TemporaryDirectory() as folder:
        ref = calls.remote(actor, folder)
        begun(f"{folder}/begun")
        ray.cancel(ref)
        return [canceled(ray, ref), begun(f"{folder}/cancelled")]


@program("cancel/actor-tasks", "cancel/force")
def force_is_refused_for_calls_of_actors(ray):
    sleeper = ray.remote(Sleeper).remote()
    with TemporaryDirectory() as folder:
        ref = sleeper.nap.remote(f"{folder}/begun", 0.3)
        answer = outcome(lambda: ray.cancel(ref, force=True))
        return [answer, ray.get(ref)]


@program("cancel/actor-tasks", "cancel/finished")
def finished_calls_of_actors(ray):
    sleeper = ray.remote(Sleeper).remote()
    ref = sleeper.get.remote()
    ray.get(ref)
    return [ray.cancel(ref), ray.get(ref), ray.get(sleeper.get.remote())]


@program("cancel/actor-tasks", "cancel/dependencies")
def calls_that_wait_for_arguments(ray):
    class Echoes:
        def echo(self, value):
            return value

    actor = ray.remote(Echoes).remote()
    with TemporaryDirectory() as folder:
        gate = ray.remote(until).remote(Path(folder, "go").exists)
        waiting = actor.echo.remote(gate)
        submitted()
        ray.cancel(waiting)
        answers = [canceled(ray, waiting), ray.get(actor.echo.remote("next"))]
        Path(folder, "go").touch()
        return [*answers, ray.get(gate)]


@program("cancel/actor-tasks")
def is_canceled_where_nothing_was(ray):
    class Looks:
        def look(self):
            return ray.get_runtime_context().is_canceled()

    return [
        outcome(lambda: ray.get_runtime_context().is_canceled()),
        outcome(lambda: ray.get(ray.remote(lambda: ray.get_runtime_context().is_canceled()).remote()), text="last"),
        ray.get(ray.remote(Looks).remote().look.remote()),
    ]
