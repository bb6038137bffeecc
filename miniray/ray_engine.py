"""``init(engine="ray")``: the same program on real Ray.

Every public call is handed to Ray: functions and classes are made remote by Ray when they are first called, with their
options translated, and refs, handles and placement groups are Ray's own. What Ray raises is Ray's own, too, and at the
same time an instance of miniray's exception of that name: Ray's classes get miniray's as further bases
(`adopt_exceptions`), so that ``except miniray.exceptions.RayTaskError`` works wherever the error comes from, ``await``
and tasks included.

The program needs miniray where its tasks run (they name it), so on a cluster it has to be installed there, or be named
in the runtime environment: ``init(engine="ray", address=..., runtime_env={"py_modules": [miniray]})``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miniray import exceptions as our_exceptions
from miniray.processes import other_engine

if TYPE_CHECKING:
    from miniray.actor import ActorClass

#: Options and arguments of miniray that Ray does not have.
_EXTENSIONS = ("timeout_s", "task_timeout_s")
#: What decides how an exception is made and shown: Ray's stay as they were.
_SHOWN = ("__str__", "__repr__")
_KEPT = ("__init__", "__new__", "__str__", "__repr__", "__reduce__", "__setstate__")


def import_ray() -> Any:
    """The real Ray.

    Raises:
        ImportError: it is not installed.
        RuntimeError: ``import ray`` is miniray in this process.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(
            "engine='ray' runs this program on the real Ray, which is not installed here: pip install 'miniray[ray]'."
        ) from (None if error.name == "ray" else error)  # that it is not there has been said
    if ray.__name__ != "ray":
        raise RuntimeError(
            "engine='ray' runs this program on the real Ray, but `import ray` is miniray in this process (the alias is "
            "installed). Start it without the alias."
        )
    return ray


def adopt_exceptions(theirs: Any) -> dict[type, type]:
    """Make each class of Ray's module of exceptions a subclass of miniray's class of the same name.

    Returns:
        For those few that Python does not let change, since a builtin exception is their first base: a class that is
        both. Errors of these types are turned into that where calls return (`_call`).
    """
    both: dict[type, type] = {}
    pairs = []
    for name, cls in vars(theirs).items():
        ours = getattr(our_exceptions, name, None)
        if not (isinstance(cls, type) and isinstance(ours, type) and issubclass(cls, BaseException)):
            continue
        if cls.__module__ == theirs.__name__ and cls.__name__ == name and not issubclass(cls, ours):
            pairs.append((cls, ours, {kept: getattr(cls, kept, None) for kept in _KEPT}))
    for cls, ours, before in sorted(pairs, key=lambda pair: len(pair[0].__mro__)):
        bases = [base for base in cls.__bases__ if not issubclass(ours, base)]
        try:
            cls.__bases__ = (*bases, ours)
        except TypeError:
            if cls is not theirs.RayError:
                shown = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
                both[cls] = type(cls.__name__, (cls, ours), shown | {name: getattr(cls, name) for name in _SHOWN})
            continue
        for kept, value in before.items():
            if getattr(cls, kept, None) is not value and value is not None:
                setattr(cls, kept, staticmethod(value) if kept == "__new__" else value)
    return both


class RayEngine:
    """The public calls, on Ray."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self._both = adopt_exceptions(importlib.import_module("ray.exceptions"))

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            both = self._both.get(type(error))
            if both is not None:
                error.__class__ = both
            raise

    # -- the session -----------------------------------------------------------------------------------------------

    def init(self, given: dict[str, Any]) -> Any:
        """`init` with these arguments: those that the program gave, and not the defaults of the others."""
        _refuse_extensions(given, "init")
        arguments = {name: self._translated(value) for name, value in given.items()}
        if "memory" in arguments:
            arguments["_memory"] = arguments.pop("memory")
        return self.ray.init(**arguments)

    def shutdown(self, *, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
        """Leave the cluster; calls that follow are miniray's again."""
        other_engine.engine = None
        self.ray.shutdown(_exiting_interpreter=_exiting_interpreter)

    def get_actor(self, name: str, namespace: str | None = None) -> Any:
        """As Ray."""
        return self._call(self.ray.get_actor, name, namespace=namespace)

    def kill(self, actor: Any, *, no_restart: bool = True, **extensions: Any) -> None:
        """As Ray, which has no graceful kill."""
        if extensions:
            raise TypeError(f"kill() got an unexpected keyword argument {next(iter(extensions))!r}: Ray has none.")
        self._call(self.ray.kill, actor, no_restart=no_restart)

    def exit_actor(self) -> None:
        """As Ray."""
        self.ray.actor.exit_actor()

    def list_named_actors(self, all_namespaces: bool = False) -> Any:
        """As Ray."""
        return self.ray.util.list_named_actors(all_namespaces)

    def find(self, module: str, name: str) -> Callable[..., Any]:
        """What a function of a module of miniray's is on Ray: the same name, with the same arguments."""
        if module.startswith("miniray.util.state"):
            module = "ray.util.state"
        elif module == "miniray.util.placement_group":
            module = "ray.util.placement_group"
        elif name in vars(RayEngine):
            found: Callable[..., Any] = getattr(self, name)
            return found
        else:
            module = "ray"
        return functools.partial(self._call, getattr(importlib.import_module(module), name))

    def get(self, object_refs: Any, timeout: float | None) -> Any:
        """As Ray."""
        return self._call(self.ray.get, object_refs, timeout=timeout)

    def put(self, value: Any) -> Any:
        """As Ray."""
        return self._call(self.ray.put, value)

    def wait(self, refs: Any, **arguments: Any) -> Any:
        """As Ray."""
        return self._call(self.ray.wait, refs, **arguments)

    # -- tasks and actors ------------------------------------------------------------------------------------------

    def remote_function(self, function: Any, options: dict[str, Any]) -> Any:
        """Ray's remote function with these options."""
        given = self._options(options)
        return self.ray.remote(**given)(function) if given else self.ray.remote(function)

    def create_actor(
        self, actor_class: ActorClass, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        """Create an actor; Ray's handle."""
        cls = actor_class._cls
        for base in cls.__mro__:
            for method in vars(base).values():
                annotated = getattr(method, "__ray_method_options__", None)
                if annotated:
                    self.ray.method(**annotated)(method)
        theirs = actor_class.__dict__.get("_on_ray")
        if theirs is None:
            theirs = actor_class.__dict__["_on_ray"] = self.ray.remote(cls)
        given = self._options(options)
        return self._call((theirs.options(**given) if given else theirs).remote, *args, **kwargs)

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        _refuse_extensions(options, "remote")
        return {name: self._translated(value) for name, value in options.items() if value is not None}

    def _translated(self, value: Any) -> Any:
        """An object of miniray's as Ray's of the same name."""
        kind = type(value)
        if not kind.__module__.startswith("miniray."):
            return value
        if isinstance(value, dict):  # RuntimeEnv
            return dict(value)
        if kind.__name__ == "JobConfig":
            theirs = self.ray.job_config.JobConfig(
                code_search_path=list(value.code_search_path),
                runtime_env=dict(value.runtime_env),
                metadata=dict(value.metadata),
                ray_namespace=value.ray_namespace,
                default_actor_lifetime=value.default_actor_lifetime,
            )
            return theirs
        if kind.__name__ == "LoggingConfig":
            return self.ray.LoggingConfig(**value.to_dict())
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        theirs_of_that_name = getattr(strategies, kind.__name__, None)
        if theirs_of_that_name is None:
            raise TypeError(f"{value!r} is miniray's own: Ray has no {kind.__name__}.")
        translated = theirs_of_that_name.__new__(theirs_of_that_name)
        for name, part in vars(value).items():
            setattr(translated, name, self._expression(part, strategies))
        return translated

    def _expression(self, value: Any, strategies: Any) -> Any:
        """The parts of a strategy: label expressions (In, NotIn, ...) in dictionaries and lists."""
        if isinstance(value, dict):
            return {key: self._expression(item, strategies) for key, item in value.items()}
        return self._translated(value)


def _refuse_extensions(given: dict[str, Any], what: str) -> None:
    for name in _EXTENSIONS:
        if given.get(name) is not None:
            raise ValueError(f"{name!r} is an extension of miniray: {what} of engine='ray' does not have it.")


def load() -> RayEngine:
    """The engine, ready to be called.

    Raises:
        ImportError, RuntimeError: there is no real Ray to be had.
    """
    return RayEngine(import_ray())


def start(given: dict[str, Any]) -> Any:
    """``init(engine="ray")``: what Ray's `init` returns."""
    engine = other_engine.engine or load()
    result = engine.init(given)
    other_engine.engine = engine
    return result
