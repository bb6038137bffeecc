"""The public names of a package, with the parameters of what can be called: for `generate_compatibility.py`.

    python docs/public_names.py ray PATH        # write what the installed package has, as JSON

Runs under the interpreter that has the package, and needs nothing else.
"""

import importlib
import inspect
import json
import sys
import types
from pathlib import Path

#: What is compared, under the package's name.
MODULES = (
    "",
    "actor",
    "cluster_utils",
    "dag",
    "exceptions",
    "experimental",
    "experimental.internal_kv",
    "experimental.tqdm_ray",
    "job_config",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "types",
    "util",
    "util.accelerators",
    "util.actor_group",
    "util.actor_pool",
    "util.annotations",
    "util.check_serialize",
    "util.debug",
    "util.iter",
    "util.metrics",
    "util.multiprocessing",
    "util.placement_group",
    "util.queue",
    "util.scheduling_strategies",
    "util.serialization",
    "util.state",
)
#: Packages whose names come from all over the place, submodules among them.
GATHERED = {"", "util", "experimental", "dag", "util.state", "runtime_env", "util.multiprocessing", "util.accelerators"}


def names_of(package: str) -> dict[str, dict[str, object]]:
    """Module -> name -> what it is."""
    found = {}
    for short in MODULES:
        full = f"{package}.{short}" if short else package
        try:
            module = importlib.import_module(full)
        except ImportError:
            continue
        wanted = set(getattr(module, "__all__", ()))
        names = found[short] = {}
        for name in sorted({*dir(module), *wanted}):
            try:
                value = getattr(module, name, None)
            except Exception:  # a library of Ray's whose own dependencies are not installed
                names[name] = "module"
                continue
            if value is not None and is_public(package, short, module, name, value, wanted):
                names[name] = described(value)
    return found


def is_public(package: str, short: str, module: types.ModuleType, name: str, value: object, wanted: set[str]) -> bool:
    """Whether users of the module are meant to find this name there."""
    if name.startswith("_"):
        return False
    if name in wanted:
        return True
    if isinstance(value, types.ModuleType):
        return short in GATHERED and value.__name__ == f"{module.__name__}.{name}"
    home = getattr(value, "__module__", None) or ""
    if isinstance(value, type) or inspect.isroutine(value):
        if short in GATHERED:
            # Decorators and hooks that a module imports for itself are not its own.
            return home.startswith(package) and not home.endswith((".annotations", "_hook"))
        return home == module.__name__ and "TypeVar" not in type(value).__name__
    return name.isupper() and isinstance(value, (int, str, float, frozenset, set, tuple, list))


def described(value: object) -> object:
    """ "module", "value", {"call": parameters} or {"class": {method: parameters}}."""
    if isinstance(value, types.ModuleType):
        return "module"
    if isinstance(value, type):
        if issubclass(value, BaseException):
            return {"class": {}}
        methods = {"__init__": parameters(value)}
        for name in dir(value):
            if not name.startswith("_"):
                member = inspect.getattr_static(value, name)
                member = getattr(member, "__func__", member)
                methods[name] = parameters(member) if callable(member) else None
        return {"class": methods}
    if callable(value):
        return {"call": parameters(value)}
    return "value"


def parameters(function: object) -> list[str] | None:
    """The names of the parameters, ``*`` and ``**`` in front of those that collect; None when they are not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        stars.get(parameter.kind, "") + name
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls") and not name.startswith("_")
    ]


if __name__ == "__main__":
    result = {"version": importlib.import_module(sys.argv[1]).__version__, "modules": names_of(sys.argv[1])}
    Path(sys.argv[2]).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
