"""Actors that fail and come back: retries of methods, restarts, limits of pending calls, names meanwhile."""

# mypy: ignore-errors
from __future__ import annotations

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ..catalog import program
from ..observe import gone, outcome, until

AREA = "actors"
SESSION = {"num_cpus": 4, "namespace": "space"}


def runs(path):
    """How often something was noted in a file."""
    return len(Path(path).read_text()) if Path(path).exists() else 0


def note(path):
    """Notes one run in a file."""
    with open(path, "a") as file:
        file.write("x")


class Flaky:
    """Fails or dies until it was tried often enough."""

    def __init__(self, path=None):
        if path is not None:
            note(path)

    def fail(self, path, times):
        note(path)
        if runs(path) <= times:
            raise ValueError(f"try {runs(path)}")
        return "done"

    def die(self, path, times):
        note(path)
        if runs(path) <= times:
            os._exit(1)
        return "done"

    def pid(self):
        return os.getpid()

    def wait(self, path):
        return until(Path(path).exists)


@program("actors/restarts", "actors/method-decorator")
def exceptions_of_methods_are_retried(ray):
    class Decorated(Flaky):
        @ray.method(max_task_retries=2, retry_exceptions=True)
        def always(self, path):
            return self.fail(path, 9)

        @ray.method(max_task_retries=1, retry_exceptions=[ValueError])
        def listed(self, path):
            return self.fail(path, 9)

        @ray.method(max_task_retries=1, retry_exceptions=[KeyError])
        def others(self, path):
            return self.fail(path, 9)

        @ray.method(max_task_retries=5, retry_exceptions=True)
        def ends(self, path):
            return self.fail(path, 2)

    actor = ray.remote(num_cpus=0)(Decorated).remote()
    answers = {}
    with TemporaryDirectory() as folder:
        for name in ("always", "listed", "others", "ends"):
            path = f"{folder}/{name}"
            answer = outcome(lambda name=name, path=path: ray.get(getattr(actor, name).remote(path)), text="last")
            answers[name] = [answer, runs(path)]
    return answers


@program("actors/restarts", "actors/method-decorator")
def retries_by_options_of_calls_and_classes(ray):
    actor = ray.remote(num_cpus=0, max_task_retries=1)(Flaky).remote()
    with TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}" for number in range(3)]
        calls = [
            lambda: actor.fail.remote(paths[0], 9),
            lambda: actor.fail.options(retry_exceptions=True).remote(paths[1], 9),
            lambda: actor.fail.options(max_task_retries=3, retry_exceptions=[ValueError]).remote(paths[2], 9),
        ]
        return [[outcome(lambda call=call: ray.get(call()), text="last") for call in calls], list(map(runs, paths))]


@program("actors/restarts")
def methods_run_again_after_a_death(ray):
    with TemporaryDirectory() as folder:
        actor = ray.remote(num_cpus=0, max_restarts=2, max_task_retries=2)(Flaky).remote(f"{folder}/made")
        first = ray.get(actor.pid.remote())
        answer = outcome(lambda: ray.get(actor.die.remote(f"{folder}/runs", 2)), text="none")
        second = ray.get(actor.pid.remote())
        return [answer, runs(f"{folder}/runs"), runs(f"{folder}/made"), first == second]


@program("actors/restarts")
def restarts_that_run_out(ray):
    with TemporaryDirectory() as folder:
        actor = ray.remote(num_cpus=0, max_restarts=1, max_task_retries=5)(Flaky).remote(f"{folder}/made")
        answer = outcome(lambda: ray.get(actor.die.remote(f"{folder}/runs", 9)), text="none")
        return [answer, runs(f"{folder}/runs"), runs(f"{folder}/made")]


@program("actors/restarts")
def calls_that_are_not_retried(ray):
    with TemporaryDirectory() as folder:
        actor = ray.remote(num_cpus=0, max_restarts=1)(Flaky).remote()
        ray.get(actor.pid.remote())
        try:
            ray.get(actor.die.remote(f"{folder}/runs", 1))
            kind = None
        except ray.exceptions.RayActorError as error:
            kind = error.actor_id == actor._actor_id.hex()
        back = until(lambda: "returns" in outcome(lambda: ray.get(actor.pid.remote()), text="none"))
        return [kind, runs(f"{folder}/runs"), back]


@program("actors/restarts", "actors/context")
def what_a_restarted_actor_knows(ray):
    class Knows:
        def __init__(self):
            self.count = 0

        def look(self):
            self.count += 1
            return [self.count, ray.get_runtime_context().was_current_actor_reconstructed, os.getpid()]

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Knows).remote()
    before = [ray.get(actor.look.remote()), ray.get(actor.look.remote())]
    os.kill(before[0][2], 9)
    until(lambda: gone(before[0][2]))
    after = ray.get(actor.look.remote())
    return [[row[:2] for row in before], after[:2], after[2] == before[0][2]]


@program("actors/restarts", "actors/named")
def names_outlive_restarts(ray):
    actor = ray.remote(num_cpus=0, max_restarts=1, max_task_retries=-1)(Flaky).options(name="returns").remote()
    pid = ray.get(actor.pid.remote())
    os.kill(pid, 9)
    until(lambda: gone(pid))
    again = ray.get_actor("returns")
    taken = outcome(lambda: ray.remote(num_cpus=0)(Flaky).options(name="returns").remote(), text="none")
    return [again == actor, ray.get(again.pid.remote()) != pid, taken]


@program("actors/order", "actors/options")
def limits_of_pending_calls(ray):
    actor = ray.remote(num_cpus=0, max_pending_calls=2)(Flaky).remote()
    ray.get(actor.pid.remote())
    with TemporaryDirectory() as folder:
        pending = [actor.wait.remote(f"{folder}/go") for _ in range(2)]
        refused = outcome(lambda: actor.pid.remote(), text="none")
        Path(folder, "go").touch()
        return [refused, ray.get(pending), until(lambda: "returns" in outcome(lambda: bool(actor.pid.remote())))]


@program("actors/handles", "actors/lifetime")
def actors_that_make_and_call_actors(ray):
    class Parent:
        def make(self, number):
            self.children = [ray.remote(num_cpus=0)(Flaky).remote() for _ in range(number)]
            return len(set(ray.get([child.pid.remote() for child in self.children])))

        def give(self):
            return self.children[0]

        def me(self):
            return ray.get_runtime_context().current_actor

    parent = ray.remote(num_cpus=0)(Parent).remote()
    made = ray.get(parent.make.remote(2))
    child = ray.get(parent.give.remote())
    return [made, ray.get(child.pid.remote()) > 0, ray.get(parent.me.remote()) == parent]


@program("actors/constructor", "actors/handles")
def calls_before_the_constructor_is_done(ray):
    class Slow:
        def __init__(self, path):
            until(Path(path).exists)
            self.value = "made"

        def get(self):
            return self.value

    with TemporaryDirectory() as folder:
        slow = ray.remote(num_cpus=0)(Slow).options(name="slow").remote(f"{folder}/go")
        early = slow.get.remote()
        found = ray.get_actor("slow")
        also = found.get.remote()
        none = ray.wait([early, also], timeout=0.1)[0]
        Path(folder, "go").touch()
        return [none, ray.get([early, also])]


@program("actors/resources", "actors/order")
def more_actors_than_cpus(ray):
    actors = [ray.remote(Flaky).remote() for _ in range(7)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    return [len(set(pids)), ray.get(ray.remote(lambda: time.sleep(0) or "a task").remote())]
