"""Calling tasks: arguments, binding, refs as arguments, nesting, where functions come from, numbers of returns."""

# mypy: ignore-errors
from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

from ..catalog import program
from ..observe import outcome, script_lines

AREA = "tasks"
SESSION = {"num_cpus": 3}


def module_function(value, factor=2):
    return value * factor


@program("tasks/binding")
def too_many_arguments(ray):
    @ray.remote
    def takes_two(first, second): ...

    @ray.remote
    def takes_none(): ...

    return [outcome(lambda: takes_two.remote(1, 2, 3)), outcome(lambda: takes_none.remote(1))]


@program("tasks/binding", python_specific=True)
def too_few_arguments(ray):
    @ray.remote
    def takes_two(first, second): ...

    @ray.remote
    def keyword_only(*, must): ...

    return [
        outcome(lambda: takes_two.remote(1)),
        outcome(lambda: takes_two.remote()),
        outcome(lambda: keyword_only.remote()),
    ]


@program("tasks/binding", python_specific=True)
def unknown_and_double_keywords(ray):
    @ray.remote
    def takes_two(first, second=0): ...

    @ray.remote
    def positional_only(first, /): ...

    return [
        outcome(lambda: takes_two.remote(1, third=3)),
        outcome(lambda: takes_two.remote(1, first=1)),
        outcome(lambda: positional_only.remote(first=1)),
        outcome(lambda: takes_two.options(name="x").remote()),
    ]


@program("tasks/direct-call")
def direct_call(ray):
    @ray.remote
    def answer():
        return 42

    return [
        outcome(lambda: answer()),
        outcome(lambda: answer(1, x=2)),
        outcome(lambda: answer.options(num_cpus=1)(), text="none"),
    ]


@program("tasks/arguments")
def argument_kinds(ray):
    @ray.remote
    def show(first, second="second", *rest, key="key", **others):
        return [first, second, list(rest), key, dict(sorted(others.items()))]

    return ray.get(
        [
            show.remote(1),
            show.remote(1, 2),
            show.remote(1, 2, 3, 4),
            show.remote(1, key=5),
            show.remote(1, second=2, other=6, another=7),
            show.remote(*[1, 2, 3], key=None, x=[]),
            show.remote(second="b", first="a"),
        ]
    )


@program("tasks/arguments")
def positional_only_and_keyword_only(ray):
    @ray.remote
    def show(first, /, second, *, third=3):
        return [first, second, third]

    return ray.get([show.remote(1, 2), show.remote(1, second=2), show.remote(1, 2, third=4)])


@program("tasks/arguments")
def arguments_are_copies(ray):
    @ray.remote
    def change(values):
        values.append(4)
        return values

    mine = [1, 2, 3]
    return [ray.get(change.remote(mine)), mine]


@program("tasks/arguments")
def defaults_are_evaluated_once_per_function(ray):
    @ray.remote
    def collect(value, into=[]):  # noqa: B006
        into.append(value)
        return len(into) >= 1

    return ray.get([collect.remote(1), collect.remote(2, []), collect.remote(3, into=[1, 2])])


@program("tasks/refs-resolved")
def refs_are_resolved_in_positions_and_keywords(ray):
    @ray.remote
    def describe(*args, **kwargs):
        return [[type(arg).__name__, arg] for arg in args], {key: [type(v).__name__, v] for key, v in kwargs.items()}

    one, text = ray.put(1), ray.put("text")
    two = describe.remote(one)
    return ray.get([two, describe.remote(one, text, key=one), describe.remote(two)])


@program("tasks/refs-resolved")
def a_ref_as_default_argument_stays_a_ref(ray):
    ref = ray.put("value")

    @ray.remote
    def kind(value=ref):
        return [type(value).__name__, ray.get(value) if isinstance(value, ray.ObjectRef) else value]

    return ray.get([kind.remote(), kind.remote(ref)])


@program("tasks/refs-resolved")
def chains_of_tasks(ray):
    @ray.remote
    def add(left, right):
        return left + right

    total = ray.put(0)
    for number in range(20):
        total = add.remote(total, number)
    tree = [add.remote(number, number) for number in range(8)]
    while len(tree) > 1:
        tree = [add.remote(tree[index], tree[index + 1]) for index in range(0, len(tree), 2)]
    return ray.get([total, tree[0]])


@program("tasks/same-ref")
def the_same_ref_twice_gives_equal_values(ray):
    @ray.remote
    def same(left, right, *, other=None):
        return [left == right, right == other]

    ref, twin = ray.put([1, 2]), ray.put([1, 2])
    return ray.get([same.remote(ref, ref, other=ref), same.remote(ref, twin, other=ref)])


@program("tasks/refs-nested")
def nested_refs_stay_refs(ray):
    @ray.remote
    def inspect(container):
        inner = container["list"][0]
        return [
            type(inner).__name__,
            isinstance(inner, ray.ObjectRef),
            ray.get(inner),
            ray.get(list(container["more"])),
        ]

    ref = ray.put("inside")
    return ray.get(inspect.remote({"list": [ref], "more": (ref, ray.put(2))}))


@program("tasks/refs-nested")
def refs_of_refs(ray):
    @ray.remote
    def make():
        return ray.put("made in a task")

    @ray.remote
    def submit():
        return [make.remote(), make.remote()]

    inner = ray.get(make.remote())
    lists = ray.get(submit.remote())
    return [type(inner).__name__, ray.get(inner), [type(ref).__name__ for ref in lists], ray.get(ray.get(lists))]


@program("tasks/refs-nested")
def a_ref_returned_unchanged(ray):
    @ray.remote
    def give_back(container):
        return container[0]

    ref = ray.put(5)
    back = ray.get(give_back.remote([ref]))
    return [back == ref, hash(back) == hash(ref), ray.get(back)]


@program("tasks/blocked-cpu", "tasks/nested")
def blocked_tasks_lend_their_cpu(ray):
    @ray.remote
    def descend(depth):
        return depth if depth == 0 else ray.get(descend.remote(depth - 1)) + 1

    @ray.remote
    def wait_for_child():
        ready, rest = ray.wait([descend.remote(1)])
        return [len(ready), len(rest), ray.get(ready[0])]

    return ray.get([descend.remote(6), wait_for_child.remote()])


@program("tasks/nested")
def recursion(ray):
    @ray.remote
    def fibonacci(n):
        return n if n < 2 else sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))

    return ray.get(fibonacci.remote(5))


@program("tasks/nested")
def mutual_recursion(ray):
    @ray.remote
    def even(n):
        return True if n == 0 else ray.get(odd.remote(n - 1))

    @ray.remote
    def odd(n):
        return False if n == 0 else ray.get(even.remote(n - 1))

    return outcome(lambda: ray.get([even.remote(3), odd.remote(3)]))


@program("tasks/nested")
def remote_functions_as_arguments(ray):
    @ray.remote
    def double(value):
        return value * 2

    @ray.remote
    def apply(function, *args):
        return [type(function).__name__, ray.get(function.remote(*args))]

    @ray.remote
    def factory(factor):
        @ray.remote
        def multiply(value):
            return value * factor

        return multiply

    triple = ray.get(factory.remote(3))
    return [ray.get(apply.remote(double, 4)), ray.get(triple.remote(5)), ray.get(apply.remote(triple, 6))]


@program("tasks/redefined")
def redefined_functions_keep_their_code(ray):
    functions = []
    for number in range(3):

        @ray.remote
        def same_name():
            return number

        functions.append(same_name)
        same_name.remote()
    first = functions[0]
    return [ray.get(first.remote()), ray.get([function.remote() for function in functions])]


@program("tasks/globals", "tasks/main-module", fresh=True)
def script_globals_defined_later(ray):
    return script_lines(
        ray,
        """
        import ENGINE as ray
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        LATER = "too early"
        @ray.remote
        def use_globals():
            return [LATER, helper(1), Kind().name, type(Kind()).__module__]
        LATER = "defined later"
        def helper(x):
            return x + 1
        class Kind:
            name = "a class of the script"
        print(ray.get(use_globals.remote()))
        LATER = "changed after the first call"
        print(ray.get(use_globals.remote())[0])
        @ray.remote
        def make():
            return Kind()
        print(isinstance(ray.get(make.remote()), Kind), ray.get(make.remote()).name)
        @ray.remote
        def undefined():
            return never_defined
        try:
            ray.get(undefined.remote())
        except NameError as error:
            print(type(error).__name__, str(error).splitlines()[-1])
        """,
    )


@program("tasks/defined-anywhere")
def lambdas_closures_and_partials(ray):
    offset = 10
    ref = ray.put(7)
    square = ray.remote(lambda value: value * value)
    add = ray.remote(lambda value: value + offset)
    read = ray.remote(lambda: ray.get(ref))
    by_module = ray.remote(module_function)
    with_options = ray.remote(num_cpus=0.5)(module_function)
    return [
        ray.get(
            [square.remote(4), add.remote(1), read.remote(), by_module.remote(3), with_options.remote(3, factor=5)]
        ),
        outcome(lambda: ray.get(ray.remote(functools.partial(module_function, factor=3)).remote(4))),
    ]


@program("tasks/defined-anywhere")
def nested_definitions(ray):
    @ray.remote
    def outer():
        @ray.remote
        def inner(value):
            def helper():
                return value + 1

            return helper()

        return ray.get([inner.remote(number) for number in range(3)])

    return ray.get(outer.remote())


@program("tasks/defined-anywhere")
def methods_and_builtins_as_tasks(ray):
    class Plain:
        def method(self):
            return "bound"

        @staticmethod
        def static(value):
            return value + 1

    return [
        outcome(lambda: ray.get(ray.remote(Plain.static).remote(1))),
        outcome(lambda: ray.get(ray.remote(len).remote([1, 2])), text="none"),
        outcome(lambda: ray.get(ray.remote(Plain().method).remote()), text="none"),
    ]


@program("tasks/imports", fresh=True)
def modules_beside_the_script(ray):
    return script_lines(
        ray,
        """
        import os, sys
        import ENGINE as ray
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        here = os.path.dirname(os.path.realpath(__file__))
        open(os.path.join(here, "written_beside.py"), "w").write("def function(): return 'from beside'")
        import written_beside
        @ray.remote
        def use():
            import written_beside
            return [written_beside.function(), here in map(os.path.realpath, sys.path)]
        print(ray.get(use.remote()), ray.get(ray.remote(written_beside.function).remote()))
        """,
    )


@program("tasks/imports", fresh=True)
def modules_on_the_code_search_path(ray):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "on_the_search_path.py").write_text("def function():\n    return 'found'\n")
        return script_lines(
            ray,
            """
            import sys
            import ENGINE as ray
            if __name__ == "__main__":
                folder = sys.argv[1]
                config = ray.job_config.JobConfig(code_search_path=[folder])
                ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", job_config=config)
                sys.path.insert(0, folder)
                import on_the_search_path
                print(ray.get(ray.remote(on_the_search_path.function).remote()))
            """,
            folder,
        )


@program("tasks/imports")
def what_cannot_be_imported_says_so(ray):
    sys.path.insert(0, folder := tempfile.mkdtemp())
    try:
        Path(folder, "only_in_the_driver.py").write_text("def function():\n    return 1\n")
        import only_in_the_driver

        os.remove(Path(folder, "only_in_the_driver.py"))
        function = ray.remote(only_in_the_driver.function)
        answer = outcome(lambda: ray.get(function.remote()), text="No module named 'only_in_the_driver'")
    finally:
        sys.path.remove(folder)
        sys.modules.pop("only_in_the_driver", None)
    return answer


@program("tasks/_remote")
def the_long_form(ray):
    @ray.remote
    def show(first, second=2):
        return [first, second]

    return [
        ray.get(show._remote(args=[1])),
        ray.get(show._remote(args=(1,), kwargs={"second": 5})),
        ray.get(show._remote([1, 2])),
        ray.get(show._remote(args=[1], num_returns=2)),
        show._remote(args=[1], num_returns=0),
        ray.get(show._remote(kwargs={"first": 0}, num_cpus=2, name="named", max_retries=0)),
        outcome(lambda: show._remote(args=[])),
    ]


@program("tasks/options")
def options_leave_the_function_as_it_is(ray):
    @ray.remote(num_cpus=1)
    def name():
        context = ray.get_runtime_context()
        return [context.get_task_name().rpartition(".")[2], context.get_assigned_resources()]

    other = name.options(name="another", num_cpus=2)
    third = name.options(num_cpus=0.5)
    return ray.get([name.remote(), other.remote(), third.remote(), name.remote()])


@program("tasks/options")
def what_options_gives(ray):
    @ray.remote
    def function():
        return 1

    wrapped = function.options(num_returns=2)
    return [
        hasattr(wrapped, "remote"),
        outcome(lambda: wrapped.options(num_cpus=1), text="none"),
    ]


@program("tasks/num-returns")
def numbers_of_returns(ray):
    def three():
        return 1, 2, 3

    def nothing():
        return None

    refs = ray.remote(num_returns=3)(three).remote()
    one = ray.remote(num_returns=1)(three).remote()
    none = ray.remote(num_returns=0)(nothing).remote()
    as_list = ray.remote(num_returns=2)(lambda: [1, [2]]).remote()
    by_options = ray.remote(three).options(num_returns=3).remote()
    return [
        [type(refs).__name__, len(refs), ray.get(refs)],
        [type(one).__name__, ray.get(one)],
        none,
        ray.get(as_list),
        ray.get(by_options),
        ray.get(ray.remote(nothing).remote()),
    ]


@program("tasks/num-returns")
def a_failed_task_fails_every_return(ray):
    @ray.remote(num_returns=3)
    def fail():
        raise KeyError("all of them")

    return [outcome(lambda ref=ref: ray.get(ref), text="last") for ref in fail.remote()]


@program("tasks/num-returns-mismatch")
def wrong_numbers_of_returned_values(ray):
    def pair():
        return 1, 2

    def number():
        return 5

    too_few = ray.remote(num_returns=3)(pair).remote()
    too_many = ray.remote(num_returns=1)(pair).options(num_returns=2)
    not_iterable = ray.remote(num_returns=2)(number).remote()
    fewer = ray.remote(num_returns=2)(lambda: (1, 2, 3)).remote()
    text = ray.remote(num_returns=2)(lambda: "ab").remote()
    return [
        outcome(lambda: ray.get(too_few[0]), text="last"),
        outcome(lambda: ray.get(too_few[2]), text="last"),
        ray.get(too_many.remote()),
        outcome(lambda: ray.get(not_iterable), text="last"),
        outcome(lambda: ray.get(fewer), text="last"),
        outcome(lambda: ray.get(text), text="last"),
    ]


@program("tasks/num-returns-mismatch")
def zero_returns_with_a_value(ray):
    @ray.remote(num_returns=0)
    def leaves_a_trace(path):
        Path(path).write_text("ran")
        return "a value that nobody asked for"

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace")
        result = leaves_a_trace.remote(path)
        ray.get(ray.remote(wait_for_file).remote(path))
        return [result, Path(path).read_text()]


def wait_for_file(path):
    import time

    while not os.path.exists(path) or not os.path.getsize(path):
        time.sleep(0.01)


@program("tasks/remote-function-object")
def what_a_remote_function_shows(ray):
    @ray.remote
    def documented(value: int) -> int:
        """Says what it does."""
        return value

    return [
        documented.__name__ if hasattr(documented, "__name__") else None,
        documented.__module__.rpartition(".")[2],
        type(documented).__name__,
        type(documented).__module__.rpartition(".")[2],
        callable(documented),
        documented._function(3),
        sorted(name for name in ("remote", "options", "_remote", "_function_name") if hasattr(documented, name)),
        hasattr(documented, "_no_such_thing"),
    ]


@program("tasks/too-large")
def functions_too_large(ray):
    data = bytes(120 * 1024 * 1024)

    @ray.remote
    def captures():
        return len(data)

    return outcome(captures.remote)
