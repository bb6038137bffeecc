"""Actors: handles, constructors, order, names, introspection, binding, kills and restarts."""

# mypy: ignore-errors
from __future__ import annotations

import os
import time

from ..catalog import program
from ..observe import error_answer, outcome, until

AREA = "actors"
SESSION = {"num_cpus": 4, "namespace": "space"}


class Counter:
    """Counts."""

    def __init__(self, start=0):
        self.value = start

    def add(self, step=1):
        self.value += step
        return self.value

    def get(self):
        return self.value

    def pid(self):
        return os.getpid()

    def fail(self, message):
        raise ValueError(message)

    def die(self):
        os._exit(1)

    @classmethod
    def made(cls):
        return cls.__name__

    @staticmethod
    def static(value):
        return value + 1


class Exploding:
    """Cannot be made."""

    def __init__(self):
        raise RuntimeError("in the constructor")

    def method(self):
        return 1


@program("actors/order")
def state_lives_in_the_actor(ray):
    counter = ray.remote(Counter).remote(10)
    other = ray.remote(Counter).remote(start=5)
    return [
        ray.get([counter.add.remote(), counter.add.remote(step=4), counter.get.remote()]),
        ray.get(other.get.remote()),
    ]


@program("actors/order")
def calls_keep_their_order(ray):
    class Recorder:
        def __init__(self):
            self.seen = []

        def record(self, value):
            self.seen.append(value)

        def get(self):
            return self.seen

    recorder = ray.remote(Recorder).remote()
    slow = ray.remote(lambda value: time.sleep(0.05) or value)
    for number in range(10):
        recorder.record.remote(slow.remote(number) if number % 3 == 0 else number)
    return ray.get(recorder.get.remote())


@program("actors/handles")
def handles_travel(ray):
    @ray.remote
    def use(handle):
        return ray.get(handle.add.remote())

    @ray.remote
    def nested(box):
        return [ray.get(box["handle"].add.remote()), box["handle"]]

    counter = ray.remote(Counter).remote()
    first = ray.get(use.remote(counter))
    second, back = ray.get(nested.remote({"handle": counter}))
    stored = ray.get(ray.put([counter]))[0]
    return [
        [first, second, ray.get(stored.add.remote())],
        [back == counter, hash(back) == hash(counter), stored == counter, len({back, counter, stored})],
        [repr(back) == repr(counter), type(counter).__name__, repr(counter).startswith("Actor(Counter")],
    ]


@program("actors/handles")
def special_methods_are_called_like_others(ray):
    class Box:
        def __init__(self):
            self.content = {}

        def __len__(self):
            return len(self.content)

        def __getitem__(self, key):
            return self.content[key]

        def __setitem__(self, key, value):
            self.content[key] = value

        def __enter__(self):
            return "entered"

        def __iter__(self):
            for key in self.content:  # Ray sends into what `yield from` names
                yield key.upper()

        def __repr__(self):
            return "a box"

    box = ray.remote(Box).remote()
    ray.get(box.__setitem__.remote("a", 1))
    return [
        ray.get([box.__len__.remote(), box.__getitem__.remote("a"), box.__enter__.remote()]),
        [ray.get(ref) for ref in box.__iter__.remote()],
        outcome(lambda: len(box), "none"),
        outcome(lambda: box["a"], "none"),
        [name for name in dir(box) if name.startswith("__") and not name.startswith("__ray")],
    ]


@program("actors/options")
def options_of_a_call(ray):
    counter = ray.remote(Counter).remote()
    return [
        outcome(lambda: bool(counter.add.options(**options).remote()))
        for options in ({"num_retruns": 2}, {"num_cpus": 1}, {"num_returns": -3}, {"name": "a name"})
    ]


@program("actors/constructor", "actors/text")
def errors_in_constructors(ray):
    actor = ray.remote(Exploding).remote()
    answers = []
    for _ in range(2):
        try:
            ray.get(actor.method.remote())
        except Exception as error:
            answers.append([error_answer(error), error.actor_id == actor._actor_id.hex()])
    return answers


@program("actors/constructor", "actors/method-binding")
def arguments_of_constructors_and_methods(ray):
    actor_class = ray.remote(Counter)
    counter = actor_class.remote()
    return [
        outcome(lambda: actor_class.remote(1, 2)),
        outcome(lambda: actor_class.remote(no_such=1)),
        outcome(lambda: counter.add.remote(1, 2)),
        outcome(lambda: counter.fail.remote()),
        outcome(lambda: counter.add.remote(steps=1)),
    ]


@program("actors/introspection")
def what_actors_show(ray):
    actor_class = ray.remote(Counter)
    counter = actor_class.remote()
    return [
        sorted(dir(counter)),
        sorted(name for name in dir(actor_class) if not name.startswith("_")),
        sorted(name for name in dir(counter.add) if not name.startswith("_")),
        [type(actor_class).__mro__[1].__name__, type(counter.add).__name__],
        actor_class.__doc__,
    ]


@program("actors/introspection")
def direct_calls_and_missing_methods(ray):
    actor_class = ray.remote(Counter)
    counter = actor_class.remote()
    return [
        outcome(lambda: actor_class()),
        outcome(lambda: counter.add(1)),
        outcome(lambda: counter.no_such_method.remote()),
        outcome(lambda: counter.value),
        outcome(lambda: setattr(counter, "value", 5) and None, text="none"),
    ]


@program("actors/inheritance")
def class_methods_and_inheritance(ray):
    actor_class = ray.remote(Counter)

    class Base:
        def hello(self):
            return f"hello from {type(self).__name__}"

    class Derived(Base):
        def more(self):
            return self.hello()

    def subclass():
        class Sub(actor_class):
            pass

    derived = ray.remote(Derived).remote()
    return [
        outcome(actor_class.made),
        outcome(lambda: actor_class.static(1)),
        ray.get([derived.hello.remote(), derived.more.remote()]),
        outcome(subclass),
    ]


@program("actors/text")
def errors_of_methods(ray):
    counter = ray.remote(Counter).remote()
    answer = outcome(lambda: ray.get(counter.fail.remote("in a method")))
    return [answer, ray.get(counter.get.remote())]


@program("actors/text")
def errors_of_actors_with_a_repr(ray):
    class Named:
        def __repr__(self):
            return "Named(5)"

        def fail(self):
            raise KeyError("named")

    return outcome(lambda: ray.get(ray.remote(Named).remote().fail.remote()))


@program("actors/named")
def names_of_actors(ray):
    actor_class = ray.remote(Counter)
    first = actor_class.options(name="first").remote(7)
    answers = [
        ray.get(ray.get_actor("first").add.remote()),
        ray.get(ray.remote(lambda: ray.get(ray.get_actor("first").add.remote())).remote()),
        outcome(lambda: actor_class.options(name="first").remote(), text="first"),
        outcome(lambda: ray.get_actor("nobody"), text="first"),
        outcome(lambda: ray.get_actor(""), text="first"),
        outcome(lambda: ray.get_actor(5), text="none"),
        outcome(lambda: actor_class.options(name="").remote(), text="first"),
        outcome(lambda: actor_class.options(name=5).remote(), text="first"),
        ray.get(actor_class.options(name="first", get_if_exists=True).remote(100).get.remote()),
        outcome(lambda: ray.get_actor("first", namespace="elsewhere"), text="first"),
        sorted(ray.util.list_named_actors()),
        [row["name"] for row in ray.util.list_named_actors(all_namespaces=True)],
    ]
    ray.kill(first)
    return [*answers, until(lambda: "first" not in ray.util.list_named_actors())]


@program("actors/kill", "actors/death-reasons")
def killed_actors(ray):
    counter = ray.remote(Counter).remote()
    ray.get(counter.add.remote())
    ray.kill(counter)
    answer = outcome(lambda: ray.get(counter.add.remote()), text="it was killed by `ray.kill")
    return [
        answer,
        outcome(lambda: ray.kill("text"), text="first"),
        outcome(lambda: ray.kill(ray.put(1)), text="first"),
    ]


@program("actors/restarts", "actors/death-reasons")
def crashed_actors(ray):
    counter = ray.remote(Counter).remote()
    first = outcome(lambda: ray.get(counter.die.remote()), text="The actor is dead because its worker process has died")
    second = outcome(lambda: ray.get(counter.get.remote()), text="none")
    return [first, second]


@program("actors/restarts")
def restarted_actors(ray):
    counter = ray.remote(max_restarts=1, max_task_retries=-1)(Counter).remote(5)
    before, pid = ray.get([counter.add.remote(), counter.pid.remote()])
    ray.kill(counter, no_restart=False)
    restarted = until(lambda: ray.get(counter.pid.remote()) != pid)
    after = ray.get(counter.add.remote())
    ray.kill(counter, no_restart=False)
    dead = until(lambda: "raises" in outcome(lambda: ray.get(counter.get.remote())))
    return [before, restarted, after, dead, outcome(lambda: ray.get(counter.get.remote()), text="none")]


@program("actors/lifetime")
def actors_end_with_their_last_handle(ray):
    counter = ray.remote(Counter).remote()
    pid = ray.get(counter.pid.remote())
    pending = counter.add.remote()
    del counter

    def gone():
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return [ray.get(pending), until(gone)]


@program("actors/method-decorator")
def decorated_methods(ray):
    class Methods:
        @ray.method(num_returns=2)
        def pair(self):
            return 1, 2

        def one(self):
            return 3, 4

    actor = ray.remote(Methods).remote()
    return [
        ray.get(actor.pair.remote()),
        ray.get(actor.one.options(num_returns=2).remote()),
        ray.get(actor.pair.options(num_returns=1).remote()),
        actor.one.options(num_returns=0).remote(),
        outcome(lambda: bool(ray.method(no_such=1)), text="none"),
        outcome(lambda: bool(ray.method()), text="none"),
    ]


@program("actors/resources")
def resources_of_actors(ray):
    class Looks:
        def look(self):
            return ray.get_runtime_context().get_assigned_resources()

    actor_class = ray.remote(Looks)
    return [
        ray.get(actor_class.remote().look.remote()),
        ray.get(actor_class.options(num_cpus=2).remote().look.remote()),
        ray.get([actor_class.remote().look.remote() for _ in range(6)]),
    ]


@program("actors/context", "context/actor-name", "context/current-actor")
def the_context_inside_actors(ray):
    class Looks:
        def look(self):
            context = ray.get_runtime_context()
            return [
                context.get_actor_name(),
                len(context.get_actor_id()),
                context.get_task_name(),
                context.get_task_function_name(),
                type(context.current_actor).__name__,
                context.was_current_actor_reconstructed,
                sorted(context.get()),
            ]

    actor_class = ray.remote(Looks)
    return [
        ray.get(actor_class.remote().look.remote()),
        ray.get(actor_class.options(name="looker").remote().look.remote()),
    ]


@program("actors/exit-actor")
def exiting_actors(ray):
    class Leaves:
        def leave(self, caught):
            try:
                ray.actor.exit_actor()
            except BaseException as error:
                if not caught:
                    raise
                return type(error).__name__

        def get(self):
            return 1

    answers = []
    for caught in (False, True):
        actor = ray.remote(Leaves).remote()
        answers.append(
            outcome(lambda actor=actor, caught=caught: ray.get(actor.leave.remote(caught)), text="exit_actor")
        )
        answers.append(outcome(lambda actor=actor: ray.get(actor.get.remote()), text="exit_actor"))
    return [*answers, outcome(lambda: ray.actor.exit_actor())]


@program("actors/options")
def options_of_actors(ray):
    def both(**options):
        decorated = outcome(lambda: bool(ray.remote(**options)(Counter)))
        by_options = outcome(lambda: bool(ray.remote(Counter).options(**options)))
        return decorated if decorated == by_options else [decorated, by_options]

    given = [
        {"max_restarts": -2},
        {"max_restarts": 1.5},
        {"max_restarts": -1},
        {"max_task_retries": -2},
        {"max_task_retries": "1"},
        {"max_concurrency": 0},
        {"max_concurrency": -1},
        {"max_concurrency": "2"},
        {"max_pending_calls": -2},
        {"max_pending_calls": 5},
        {"lifetime": "forever"},
        {"lifetime": "detached"},
        {"lifetime": 1},
        {"namespace": 5},
        {"namespace": ""},
        {"concurrency_groups": {"io": 2}},
        {"concurrency_groups": "io"},
        {"get_if_exists": True},
        {"num_returns": 2},
        {"max_calls": 1},
        {"max_retries": 1},
        {"allow_out_of_order_execution": True},
        {"num_cpus": -1},
    ]
    answers = {}
    for options in given:
        answer = both(**options)
        for part in answer if isinstance(answer, list) else [answer]:
            part["text"] = part.get("text", "").partition(" Valid ones are")[0]
        answers[str(options)] = answer
    return answers
