"""The texts of errors, as programs compare them: `str(error)` literally, chains, and Ray's own exceptions."""

# mypy: ignore-errors
from __future__ import annotations

import traceback

from ..catalog import program
from ..observe import error_answer, outcome, public_bases

AREA = "errors"
SESSION = {"num_cpus": 3}


def text_of(ray, ref):
    """What `str` and the type's name of the error say that get raises."""
    try:
        ray.get(ref)
    except BaseException as error:
        return [type(error).__name__, str(error)]
    return None


def helper(value):
    return divide(value, 0)


def divide(a, b):
    return a / b


@program("errors/text-task")
def text_of_a_failed_task(ray):
    @ray.remote
    def f():
        raise ValueError("the message")

    return text_of(ray, f.remote())


@program("errors/text-task")
def text_with_inner_frames(ray):
    @ray.remote
    def f(value):
        return helper(value)

    return text_of(ray, f.remote(1))


@program("errors/text-task")
def text_of_a_named_task(ray):
    @ray.remote
    def f():
        raise ValueError("named")

    return text_of(ray, f.options(name="a better name").remote())


@program("errors/text-task")
def text_of_a_lambda(ray):
    return text_of(ray, ray.remote(lambda: 1 / 0).remote())


@program("errors/text-task")
def text_with_a_multi_line_message(ray):
    @ray.remote
    def f():
        raise ValueError("first line\nsecond line\n\n  indented")

    return text_of(ray, f.remote())


@program("errors/text-task")
def text_with_no_message(ray):
    @ray.remote
    def f():
        raise RuntimeError

    @ray.remote
    def g():
        assert 1 == 2

    return [text_of(ray, f.remote()), text_of(ray, g.remote())]


@program("errors/text-chain")
def text_of_raise_from(ray):
    @ray.remote
    def f():
        try:
            divide(1, 0)
        except ZeroDivisionError as error:
            raise RuntimeError("from it") from error

    @ray.remote
    def g():
        try:
            divide(1, 0)
        except ZeroDivisionError:
            raise RuntimeError("while handling it")

    @ray.remote
    def h():
        try:
            divide(1, 0)
        except ZeroDivisionError:
            raise RuntimeError("hidden") from None

    return [text_of(ray, function.remote()) for function in (f, g, h)]


@program("errors/text-chain")
def text_of_a_failed_dependency(ray):
    @ray.remote
    def f():
        raise ValueError("at the bottom")

    @ray.remote
    def g(value): ...

    return text_of(ray, g.remote(f.remote()))


@program("errors/text-chain")
def text_of_a_long_chain(ray):
    @ray.remote
    def f():
        raise ValueError("at the bottom")

    @ray.remote
    def g(value): ...

    @ray.remote
    def h(a, b): ...

    return text_of(ray, h.remote(1, g.remote(g.remote(f.remote()))))


@program("errors/text-chain")
def text_of_nested_gets(ray):
    @ray.remote
    def f():
        raise ValueError("at the bottom")

    @ray.remote
    def g():
        return ray.get(f.remote())

    @ray.remote
    def h():
        return ray.get(g.remote())

    return [text_of(ray, g.remote()), text_of(ray, h.remote())]


@program("errors/text-chain")
def text_of_an_error_raised_from_an_error_of_get(ray):
    @ray.remote
    def f():
        raise ValueError("at the bottom")

    @ray.remote
    def g():
        try:
            ray.get(f.remote())
        except ValueError as error:
            raise KeyError("on top") from error

    return text_of(ray, g.remote())


@program("errors/text-chain")
def text_of_a_crash_in_a_dependency(ray):
    @ray.remote(max_retries=0)
    def f():
        import os

        os._exit(1)

    @ray.remote
    def g(value): ...

    try:
        ray.get(g.remote(f.remote()))
    except Exception as error:
        return error_answer(error, "first")


@program("errors/text-task")
def texts_of_syntax_and_import_errors(ray):
    @ray.remote
    def f():
        import no_such_module_anywhere  # noqa: F401

    @ray.remote
    def g():
        compile("a b", "given.py", "exec")

    return [text_of(ray, f.remote()), text_of(ray, g.remote())[0]]


@program("errors/text-task")
def recursion_errors(ray):
    @ray.remote
    def f():
        def deeper():
            return deeper()

        return deeper()

    kind, text = text_of(ray, f.remote())
    return [kind, text.splitlines()[-1], text.splitlines()[0]]


@program("errors/text-task")
def printed_traceback_at_the_driver(ray):
    @ray.remote
    def f():
        raise ValueError("printed")

    try:
        ray.get(f.remote())
    except ValueError as error:
        lines = "".join(traceback.format_exception(error)).splitlines()
    return [
        lines[0],
        lines[-1],
        [line for line in lines if "ray::f()" in line],
        sum("raise ValueError" in line for line in lines),
    ]


@program("errors/text-task")
def error_text_of_many_returns(ray):
    @ray.remote(num_returns=2)
    def f():
        raise ValueError("for both")

    first, second = f.remote()
    return [text_of(ray, first) == text_of(ray, second), text_of(ray, [first, second])[1].splitlines()[-1]]


@program("errors/names")
def every_exception_with_its_bases(ray):
    names = {
        name: value
        for name, value in vars(ray.exceptions).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    return {
        name: public_bases(value)
        for name, value in sorted(names.items())
        if not name.startswith("_")
        and value.__module__.split(".")[0] in ("ray", "miniray")
        and name != "TaskTimeoutError"
    }


@program("errors/names")
def the_list_of_exceptions(ray):
    listed = [
        item if isinstance(item, str) else item.__name__ for item in getattr(ray.exceptions, "RAY_EXCEPTION_TYPES", [])
    ]
    return [
        len(listed) > 0,
        sorted(
            set(listed) & {"PlasmaObjectNotAvailable", "RayError", "RayTaskError", "ObjectLostError", "GetTimeoutError"}
        ),
    ]


@program("errors/exception-objects")
def texts_without_arguments(ray):
    answers = {}
    for name in (
        "RayError",
        "TaskCancelledError",
        "RayActorError",
        "ActorDiedError",
        "WorkerCrashedError",
        "GetTimeoutError",
        "RuntimeEnvSetupError",
        "TaskPlacementGroupRemoved",
        "ActorPlacementGroupRemoved",
        "LocalRayletDiedError",
        "AsyncioActorExit",
        "ObjectStoreFullError",
        "OutOfDiskError",
        "CrossLanguageError",
        "NodeDiedError",
        "PendingCallsLimitExceeded",
        "OutOfMemoryError",
        "RaySystemError",
    ):
        kind = getattr(ray.exceptions, name)
        answers[name] = [outcome(lambda kind=kind: str(kind()), text="none")]
        if name not in ("ActorDiedError", "CrossLanguageError"):
            answers[name].append(outcome(lambda kind=kind: str(kind("given")), text="none"))
    return answers


@program("errors/exception-objects")
def texts_of_lost_objects(ray):
    answers = {}
    for name in (
        "ObjectLostError",
        "ObjectFreedError",
        "OwnerDiedError",
        "ObjectFetchTimedOutError",
        "ReferenceCountingAssertionError",
        "ObjectReconstructionFailedError",
        "ObjectReconstructionFailedMaxAttemptsExceededError",
        "ObjectReconstructionFailedLineageEvictedError",
    ):
        kind = getattr(ray.exceptions, name, None)
        if kind is not None:
            error = outcome(lambda kind=kind: error_answer(kind("ab" * 28, None, "where it was made")))
            answers[name] = error
    return answers


@program("errors/exception-objects")
def exception_objects_made_by_hand(ray):
    exceptions = ray.exceptions
    task_id = ray.TaskID(b"\1" * 24)
    return [
        outcome(lambda: str(exceptions.TaskCancelledError(task_id))),
        outcome(lambda: str(exceptions.TaskCancelledError(task_id, error_message="why"))),
        outcome(lambda: str(exceptions.RuntimeEnvSetupError("it failed"))),
        outcome(lambda: str(exceptions.RaySystemError("cannot connect"))),
        outcome(lambda: str(exceptions.RaySystemError("cannot connect", "Traceback text"))),
        outcome(lambda: str(exceptions.UserCodeException("text")), text="none"),
        outcome(lambda: str(exceptions.TaskUnschedulableError("nowhere"))),
        outcome(lambda: str(exceptions.ActorUnschedulableError("nowhere"))),
        outcome(lambda: str(exceptions.ActorUnavailableError("why", b"\1" * 16))),
        outcome(lambda: exceptions.ActorDiedError().actor_id),
        outcome(lambda: exceptions.ActorUnavailableError("why", b"\1" * 16).actor_id),
        outcome(lambda: isinstance(exceptions.RayActorError(), exceptions.RayError)),
    ]


@program("errors/exception-objects", "errors/error-pickle")
def rays_own_exceptions_can_be_pickled(ray):
    import pickle

    made = [
        ray.exceptions.GetTimeoutError("late"),
        ray.exceptions.WorkerCrashedError(),
        ray.exceptions.TaskCancelledError(ray.TaskID(b"\1" * 24)),
        ray.exceptions.RaySystemError("system"),
        ray.exceptions.ActorDiedError(),
        ray.exceptions.RuntimeEnvSetupError("env"),
    ]
    copies = [outcome(lambda error=error: pickle.loads(pickle.dumps(error)), text="none") for error in made]
    return [
        [type(copy["returns"]) is type(error), str(copy["returns"]) == str(error)] if "returns" in copy else copy
        for copy, error in zip(copies, made, strict=True)
    ]


@program("errors/exception-objects")
def raising_rays_exceptions_in_tasks(ray):
    @ray.remote
    def fail():
        raise ray.exceptions.GetTimeoutError("by hand")

    return [outcome(lambda: ray.get(fail.remote()), text="last")]
