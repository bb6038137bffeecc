"""How actors end: handles that go, kill, exit, terminate; their processes; detached ones; what cannot travel."""

# mypy: ignore-errors
from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

from ..catalog import program
from ..observe import gone, outcome, run_script, script_lines, until

AREA = "actors"
SESSION = {"num_cpus": 4, "namespace": "space"}


class Leaver:
    """Says in a file what runs when it ends."""

    def __init__(self, path):
        self.path = path
        atexit.register(self.say, "atexit")

    def say(self, word):
        with open(self.path, "a") as file:
            file.write(word + "\n")

    def pid(self):
        return os.getpid()

    def leave(self, exit_actor):
        exit_actor()

    def __ray_shutdown__(self):
        self.say("shutdown")


class Plain:
    """Answers."""

    def __init__(self, value=1):
        self.value = value

    def get(self):
        return self.value

    def pid(self):
        return os.getpid()

    def echo(self, value):
        return value

    def sleep(self, seconds):
        time.sleep(seconds)
        return "slept"


def words_when_gone(pid, path):
    """What an actor wrote when its process has ended."""
    return [until(lambda: gone(pid)), Path(path).read_text().split() if Path(path).exists() else []]


@program("actors/terminate")
def endings_that_run_the_hooks(ray):
    with tempfile.TemporaryDirectory() as folder:
        answers = {}
        for how in ("last handle", "terminate", "exit"):
            path = os.path.join(folder, how.replace(" ", ""))
            actor = ray.remote(Leaver).remote(path)
            pid = ray.get(actor.pid.remote())
            if how == "terminate":
                answers["returned"] = outcome(
                    lambda actor=actor: ray.get(actor.__ray_terminate__.remote()), text="none"
                )
            if how == "exit":
                outcome(lambda actor=actor: ray.get(actor.leave.remote(ray.actor.exit_actor)))
            del actor
            answers[how] = words_when_gone(pid, path)
        return answers


@program("actors/terminate", "actors/kill")
def killing_skips_the_hooks(ray):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "killed")
        actor = ray.remote(Leaver).remote(path)
        pid = ray.get(actor.pid.remote())
        ray.kill(actor)
        return words_when_gone(pid, path)


@program("actors/terminate")
def hooks_that_raise(ray):
    class Raises:
        def __init__(self, path):
            self.path = path
            atexit.register(Path(path).write_text, "atexit")

        def pid(self):
            return os.getpid()

        def __ray_shutdown__(self):
            raise RuntimeError("in the hook")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "raises")
        actor = ray.remote(Raises).remote(path)
        pid = ray.get(actor.pid.remote())
        del actor
        return words_when_gone(pid, path)


@program("actors/terminate", "actors/order")
def termination_waits_its_turn(ray):
    actor = ray.remote(Plain).remote()
    slept = actor.sleep.remote(0.2)
    ended = actor.__ray_terminate__.remote()
    late = actor.get.remote()
    return [
        ray.get(slept),
        outcome(lambda: ray.get(ended), text="none"),
        outcome(lambda: ray.get(late), text="none"),
    ]


@program("actors/terminate")
def a_hook_that_hangs_is_ended(ray):
    class Hangs:
        def pid(self):
            return os.getpid()

        def __ray_shutdown__(self):
            while True:
                time.sleep(1)

    actor = ray.remote(Hangs).remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    return until(lambda: gone(pid))


@program("actors/exit-actor", "actors/terminate")
def system_exit_in_methods(ray):
    class Exits:
        def __init__(self, path):
            self.path = path

        def pid(self):
            return os.getpid()

        def exit(self, code):
            sys.exit(code)

        def get(self):
            return 1

        def __ray_shutdown__(self):
            Path(self.path).write_text("shutdown")

    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for code in (0, 1):
            path = os.path.join(folder, str(code))
            actor = ray.remote(Exits).remote(path)
            pid = ray.get(actor.pid.remote())
            answers.append(outcome(lambda actor=actor, code=code: ray.get(actor.exit.remote(code)), text="none"))
            answers.append(outcome(lambda actor=actor: ray.get(actor.get.remote()), text="none"))
            answers.append(until(lambda pid=pid: gone(pid)))
    return answers


@program("actors/exit-actor")
def exiting_with_calls_behind(ray):
    class Leaves:
        def leave(self):
            time.sleep(0.1)
            ray.actor.exit_actor()

        def get(self):
            return 1

    actor = ray.remote(Leaves).remote()
    calls = [actor.get.remote(), actor.leave.remote(), actor.get.remote(), actor.get.remote()]
    return [outcome(lambda call=call: ray.get(call), text="exit_actor") for call in calls]


@program("actors/exit-actor", "actors/constructor")
def exiting_in_the_constructor(ray):
    class Leaves:
        def __init__(self):
            ray.actor.exit_actor()

        def get(self):
            return 1

    actor = ray.remote(Leaves).remote()
    return outcome(lambda: ray.get(actor.get.remote()), text="exit_actor")


@program("actors/exit-actor", "actors/restarts")
def actors_that_exit_are_not_restarted(ray):
    class Leaves:
        def leave(self):
            ray.actor.exit_actor()

        def get(self):
            return 1

    actor = ray.remote(max_restarts=-1, max_task_retries=-1)(Leaves).remote()
    ray.get(actor.get.remote())
    return [
        outcome(lambda: ray.get(actor.leave.remote()), text="exit_actor"),
        outcome(lambda: ray.get(actor.get.remote()), text="exit_actor"),
    ]


@program("actors/exit-actor")
def exiting_where_no_actor_is(ray):
    @ray.remote
    def in_a_task():
        ray.actor.exit_actor()

    return [
        outcome(lambda: ray.actor.exit_actor()),
        outcome(lambda: ray.get(in_a_task.remote()), text="last"),
    ]


@program("actors/lifetime", "actors/handles")
def handles_in_arguments_and_objects(ray):
    @ray.remote
    def use(box):
        time.sleep(0.2)
        return ray.get(box[0].get.remote())

    actor = ray.remote(Plain).remote(5)
    pid = ray.get(actor.pid.remote())
    used = use.remote([actor])
    kept = ray.put({"handle": actor})
    del actor
    first = ray.get(used)
    alive = not gone(pid)
    again = ray.get(kept)["handle"]
    second = ray.get(again.get.remote())
    del kept, again, used
    gc.collect()
    return [first, alive, second, until(lambda: gone(pid))]


@program("actors/lifetime", "actors/handles")
def an_actor_that_another_actor_holds(ray):
    class Keeper:
        def keep(self, box):
            self.kept = box[0]

        def ask(self):
            return ray.get(self.kept.get.remote())

        def drop(self):
            self.kept = None

    actor = ray.remote(Plain).remote(6)
    pid = ray.get(actor.pid.remote())
    keeper = ray.remote(Keeper).remote()
    ray.get(keeper.keep.remote([actor]))
    del actor
    gc.collect()
    asked = ray.get(keeper.ask.remote())
    ray.get(keeper.drop.remote())
    return [asked, until(lambda: gone(pid))]


@program("actors/lifetime", "actors/named")
def handles_by_name_are_weak(ray):
    actor = ray.remote(Plain).options(name="held").remote(7)
    pid = ray.get(actor.pid.remote())
    weak = ray.get_actor("held")
    answer = [ray.get(weak.get.remote()), weak == actor]
    del actor
    gc.collect()
    ended = until(lambda: gone(pid))
    return [*answer, ended, outcome(lambda: ray.get(weak.get.remote()), text="none")]


@program("actors/lifetime", "actors/context")
def the_own_handle_is_weak(ray):
    class Holds:
        def hold(self):
            self.me = ray.get_runtime_context().current_actor
            return os.getpid()

    actor = ray.remote(Holds).remote()
    pid = ray.get(actor.hold.remote())
    del actor
    gc.collect()
    return until(lambda: gone(pid))


@program("actors/lifetime")
def calls_without_keeping_the_handle(ray):
    refs = [ray.remote(Plain).remote(number).get.remote() for number in range(3)]
    return ray.get(refs)


@program("actors/lifetime", "actors/handles")
def handles_are_in_no_reference_cycle(ray):
    actor = ray.remote(Plain).remote()
    ray.get(actor.get.remote())
    watched = weakref.ref(actor)
    gc.disable()
    try:
        del actor
        return watched() is None
    finally:
        gc.enable()


@program("actors/lifetime")
def actors_of_a_task_end_with_it(ray):
    @ray.remote
    def make():
        inner = ray.remote(Plain).remote(3)
        return ray.get([inner.get.remote(), inner.pid.remote()])

    value, pid = ray.get(make.remote())
    return [value, until(lambda: gone(pid))]


@program("actors/lifetime", "actors/handles")
def handles_that_a_task_returns(ray):
    @ray.remote
    def make():
        return [ray.remote(Plain).remote(4)]

    (actor,) = ray.get(make.remote())
    pid = ray.get(actor.pid.remote())
    answer = [ray.get(actor.get.remote()), not gone(pid)]
    del actor
    gc.collect()
    return [*answer, until(lambda: gone(pid))]


@program("actors/death-reasons", "actors/lifetime", fresh=True)
def actors_whose_owner_died(ray):
    class Owner:
        def make(self):
            self.inner = ray.remote(Plain).remote(9)
            return [self.inner]

        def die(self):
            os._exit(1)

    ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR")
    owner = ray.remote(Owner).remote()
    (inner,) = ray.get(owner.make.remote())
    value = ray.get(inner.get.remote())
    died = outcome(lambda: ray.get(owner.die.remote()), text="its worker process has died")

    def dead():
        return "raises" in outcome(lambda: ray.get(inner.get.remote(), timeout=10))

    ended = until(dead)
    return [value, died, ended, outcome(lambda: ray.get(inner.get.remote()), text="its owner has died")]


@program("actors/death-reasons")
def actors_killed_from_outside(ray):
    actor = ray.remote(Plain).remote()
    pid = ray.get(actor.pid.remote())
    running = actor.sleep.remote(30)
    ray.get(ray.remote(lambda: None).remote())
    os.kill(pid, signal.SIGKILL)
    text = "The actor is dead because its worker process has died"
    return [
        outcome(lambda: ray.get(running), text=text),
        outcome(lambda: ray.get(actor.get.remote()), text=text),
    ]


@program("actors/kill")
def killing_a_busy_actor(ray):
    actor = ray.remote(Plain).remote()
    pid = ray.get(actor.pid.remote())
    calls = [actor.sleep.remote(30), actor.get.remote()]
    ray.kill(actor)
    text = "it was killed by `ray.kill"
    return [*(outcome(lambda call=call: ray.get(call), text=text) for call in calls), until(lambda: gone(pid))]


@program("actors/kill")
def killing_in_odd_states(ray):
    class Slow:
        def __init__(self):
            time.sleep(30)

        def get(self):
            return 1

    slow = ray.remote(Slow).remote()
    ray.kill(slow)
    dead = ray.remote(Plain).remote()
    ray.get(dead.get.remote())
    ray.kill(dead)
    outcome(lambda: ray.get(dead.get.remote()))
    return [
        outcome(lambda: ray.get(slow.get.remote()), text="none"),
        outcome(lambda: ray.kill(dead)),
        outcome(lambda: ray.kill(ray.remote(Plain)), text="first"),
    ]


@program("actors/kill", "actors/handles")
def killing_from_a_task(ray):
    @ray.remote
    def end(handle):
        ray.kill(handle)

    actor = ray.remote(Plain).remote()
    pid = ray.get(actor.pid.remote())
    ray.get(end.remote(actor))
    return [until(lambda: gone(pid)), outcome(lambda: ray.get(actor.get.remote()), text="none")]


@program("actors/processes")
def processes_of_actors(ray):
    actors = [ray.remote(Plain).remote() for _ in range(3)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    again = ray.get([actor.pid.remote() for actor in actors])
    return [len({*pids, os.getpid()}), pids == again]


@program("actors/processes")
def titles_of_actor_processes(ray):
    class Titled:
        def title(self):
            with open("/proc/self/cmdline") as file:
                return file.read().split("\0")[0]

    def idle_title(pid):
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")[0]

    actor = ray.remote(Titled).remote()
    named = ray.remote(Titled).options(name="the name").remote()
    answers = [ray.get(actor.title.remote()), ray.get(named.title.remote())]
    answers.append(ray.get(actor.title.options(name="renamed").remote()))
    other = ray.remote(Plain).remote()
    pid = ray.get(other.pid.remote())
    until(lambda: idle_title(pid).rstrip() == "ray::Plain")
    return [*answers, idle_title(pid).rstrip()]


@program("actors/processes")
def plain_actors_run_in_the_main_thread(ray):
    class Looks:
        def __init__(self):
            self.made_in = threading.current_thread() is threading.main_thread()

        def look(self):
            import asyncio

            try:
                asyncio.get_running_loop()
            except RuntimeError:
                running = False
            else:
                running = True

            async def number():
                return 5

            return [
                self.made_in,
                threading.current_thread() is threading.main_thread(),
                running,
                asyncio.run(number()),
            ]

    return ray.get(ray.remote(Looks).remote().look.remote())


@program("actors/detached", "actors/named", fresh=True)
def detached_actors_outlive_their_driver(ray):
    context = ray.init(num_cpus=2, namespace="shared", include_dashboard=False, logging_level="ERROR")
    lines = script_lines(
        ray,
        """
        import sys
        import ENGINE as ray
        ray.init(address=sys.argv[1], namespace="shared", logging_level="ERROR", log_to_driver=False)

        @ray.remote(num_cpus=0)
        class Keeps:
            def __init__(self, value):
                self.value = value

            def get(self):
                return self.value

        stays = Keeps.options(name="stays", lifetime="detached").remote(1)
        goes = Keeps.options(name="goes").remote(2)
        other = Keeps.options(name="other", namespace="elsewhere", lifetime="detached").remote(3)
        print(ray.get([stays.get.remote(), goes.get.remote(), other.get.remote()]))
        """,
        context.address_info["gcs_address"],
    )
    ended = until(lambda: "raises" in outcome(lambda: ray.get_actor("goes")))
    stays = ray.get_actor("stays")
    answers = [
        lines,
        ended,
        ray.get(stays.get.remote()),
        ray.get(ray.get_actor("other", namespace="elsewhere").get.remote()),
        sorted(ray.util.list_named_actors()),
        sorted((row["namespace"], row["name"]) for row in ray.util.list_named_actors(all_namespaces=True)),
    ]
    ray.kill(stays)
    return [*answers, until(lambda: ray.util.list_named_actors() == [])]


@program("actors/detached", "actors/lifetime")
def detached_actors_outlive_their_handles(ray):
    actor = ray.remote(Plain).options(name="detached one", lifetime="detached", num_cpus=0).remote(8)
    pid = ray.get(actor.pid.remote())
    del actor
    gc.collect()
    time.sleep(0.5)
    again = ray.get_actor("detached one")
    answers = [not gone(pid), ray.get(again.get.remote())]
    ray.kill(again)
    return [*answers, until(lambda: gone(pid))]


@program("actors/detached", "actors/options")
def lifetimes_that_are_given(ray):
    actor_class = ray.remote(Plain)
    return [
        outcome(lambda: actor_class.options(lifetime="detached", num_cpus=0).remote() and "made", text="first"),
        outcome(lambda: actor_class.options(lifetime="non_detached", num_cpus=0).remote() and "made", text="first"),
        outcome(lambda: actor_class.options(lifetime=None, num_cpus=0).remote() and "made", text="first"),
        outcome(lambda: actor_class.options(lifetime="").remote() and "made", text="first"),
    ]


@program("actors/large-class")
def classes_too_large(ray):
    ballast = b"\0" * (96 * 1024 * 1024)

    class Heavy:
        def get(self):
            return len(ballast)

    text = outcome(lambda: ray.remote(Heavy).remote() and "made", text="first")
    return text


@program("actors/serialization")
def classes_that_cannot_travel(ray):
    lock = threading.Lock()

    class Locked:
        def get(self):
            return lock

    answer = outcome(lambda: ray.remote(Locked).remote() and "made")
    # The report walks over what the library makes of a class; what counts is what it names.
    lines = answer.pop("text").splitlines()
    return [
        answer,
        lines[0],
        sum(set(line) == {"="} for line in lines),
        any("FailTuple(lock [" in line for line in lines),
        any("Serializing 'get'" in line for line in lines),
        lines[-2:],
    ]


@program("actors/serialization", python_specific=True)
def arguments_that_cannot_travel(ray):
    actor = ray.remote(Plain).remote()
    return [
        outcome(lambda: ray.remote(Plain).remote(threading.Lock()) and "made"),
        outcome(lambda: actor.echo.remote(threading.Lock()) and "called"),
        outcome(lambda: actor.echo.remote(value=threading.Lock()) and "called"),
        ray.get(actor.echo.remote("still there")),
    ]


@program("actors/serialization", python_specific=True)
def results_that_cannot_travel(ray):
    class Makes:
        def lock(self):
            return threading.Lock()

        def get(self):
            return 1

    actor = ray.remote(Makes).remote()
    return [outcome(lambda: ray.get(actor.lock.remote()), text="last"), ray.get(actor.get.remote())]


@program("actors/lifetime", "init/exit", fresh=True)
def actors_end_with_their_driver(ray):
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    address = ray.get_runtime_context().gcs_address
    finished = run_script(
        ray,
        """
        import os, sys
        import ENGINE as ray
        ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)

        @ray.remote(num_cpus=0)
        class A:
            def pid(self):
                return os.getpid()

        actor = A.remote()
        print(ray.get(actor.pid.remote()), flush=True)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), 9)
        """,
        address,
        "killed",
    )
    pid = int(finished["out"][0])
    return [finished["code"], until(lambda: gone(pid))]
