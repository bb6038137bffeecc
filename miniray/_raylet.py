"""Under Ray's name ``ray._raylet``: the types that Ray has compiled, from where they are here."""

from typing import Any, NamedTuple

from miniray._common.network_utils import (
    build_address,
    get_all_interfaces_ip,
    get_localhost_ip,
    is_ipv6,
    is_localhost,
    node_ip_address_from_perspective,
    parse_address,
)
from miniray.generators import ObjectRefGenerator
from miniray.ids import (
    ActorClassID,
    ActorID,
    BaseID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from miniray.language import Language
from miniray.refs import DynamicObjectRefGenerator, ObjectRef

__all__ = [
    "STREAMING_GENERATOR_RETURN",
    "ActorClassID",
    "ActorID",
    "BaseID",
    "ClusterID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "GcsClientOptions",
    "JobID",
    "Language",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "PythonFunctionDescriptor",
    "StreamingObjectRefGenerator",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "build_address",
    "get_all_interfaces_ip",
    "get_localhost_ip",
    "is_ipv6",
    "is_localhost",
    "node_ip_address_from_perspective",
    "parse_address",
]

ObjectID = ObjectRef
StreamingObjectRefGenerator = ObjectRefGenerator
STREAMING_GENERATOR_RETURN = -2
RESOURCE_UNIT_SCALING = 10000


class GcsClientOptions:
    """Where a session is, for those who hand that on."""

    def __init__(self, gcs_address: str = "") -> None:
        self.gcs_address = gcs_address

    @classmethod
    def create(cls, gcs_address: str, *args: Any, **kwargs: Any) -> "GcsClientOptions":
        """From an address."""
        return cls(gcs_address)


class PythonFunctionDescriptor(NamedTuple):
    """The name of a function."""

    module_name: str
    function_name: str
    class_name: str = ""
    function_hash: str = ""
