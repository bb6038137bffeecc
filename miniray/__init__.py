"""miniray: the Ray Core API in pure Python, on one machine.

The layers, each importing only those before it: *words* (ids, options, exceptions, refs); *messages*, what processes say to each
other; *state_machines*, which decide, beside *system*, which does; *processes*, who runs: head, driver, worker; the modules
that users import, under Ray's own names; and on top, on the public API only, *util*, *cli*, *testing* and *compat*.
"""

from miniray import exceptions
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
from miniray.refs import ObjectRef
from miniray.version import __version__

ObjectID = ObjectRef

__all__ = [
    "ActorClassID",
    "ActorID",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__version__",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_gpu_ids",
    "init",
    "is_initialized",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
]
