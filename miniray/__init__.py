"""miniray: the Ray Core API in pure Python, on one machine.

The layers, each importing only those before it: *words* (ids, options, exceptions, refs); *messages*, what processes
say to each other; *state_machines*, which decide, beside *system*, which does; *processes*, who runs: head, driver,
worker; the modules that users import, under Ray's own names; and on top, on the public API only, *util*, *cli*,
*testing* and *compat*.
"""

from os import environ as _environ
from typing import TYPE_CHECKING, Any

from miniray import exceptions as exceptions
from miniray import remote_function as remote_function
from miniray import runtime_context as runtime_context
from miniray.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_gpu_ids,
    init,
    is_initialized,
    nodes,
    put,
    remote,
    shutdown,
    timeline,
    wait,
)
from miniray.ids import (
    ActorClassID,
    ActorID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from miniray.ids import ClusterID as ClusterID
from miniray.options import means_yes as _means_yes
from miniray.refs import ObjectRef
from miniray.runtime_context import get_runtime_context
from miniray.version import __version__

if TYPE_CHECKING:
    from miniray import actor as actor
    from miniray import job_config as job_config
    from miniray import runtime_env as runtime_env
    from miniray.actor import get_actor, kill, method
    from miniray.client_builder import ClientBuilder, client
    from miniray.cross_language import java_actor_class, java_function
    from miniray.generators import ObjectRefGenerator
    from miniray.language import Language
    from miniray.logging_config import LoggingConfig
    from miniray.refs import DynamicObjectRefGenerator

ObjectID = ObjectRef

SCRIPT_MODE = 0
WORKER_MODE = 1
SPILL_WORKER_MODE = 2
RESTORE_WORKER_MODE = 3
__commit__ = f"miniray-{__version__}"

#: Loaded when they are first asked for: few programs need them, and all would wait for them.
_LAZY = {
    "ClientBuilder": "miniray.client_builder",
    "DynamicObjectRefGenerator": "miniray.refs",
    "Language": "miniray.language",
    "LoggingConfig": "miniray.logging_config",
    "ObjectRefGenerator": "miniray.generators",
    "_common": "",
    "_private": "",
    "_raylet": "",
    "actor": "",
    "client": "miniray.client_builder",
    "client_builder": "",
    "cloudpickle": "",
    "cross_language": "",
    "dag": "",
    "experimental": "",
    "get_actor": "miniray.actor",
    "java_actor_class": "miniray.cross_language",
    "java_function": "miniray.cross_language",
    "job_config": "",
    "kill": "miniray.actor",
    "method": "miniray.actor",
    "runtime_env": "",
    "types": "",
    "util": "",
    "worker": "",
}

__all__ = [
    "SCRIPT_MODE",
    "WORKER_MODE",
    "ActorClassID",
    "ActorID",
    "ClientBuilder",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "client",
    "cluster_resources",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "util",
    "wait",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        from miniray.absent_parts import why_absent

        if sentence := why_absent(name):
            raise AttributeError(sentence)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if not module:
        return import_module(f"{__name__}.{name}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


if _means_yes(_environ.get("MINIRAY_AS_RAY", "0")):
    from miniray.system import import_alias as _import_alias

    _import_alias.install()
