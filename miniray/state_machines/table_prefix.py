"""The tables of the GCS and the channels on which their rows are published: Ray's names and numbers.

`PUBLISHED_ON` is the one place that says which table publishes where. Tables that only readers ask for publish nowhere.
"""

from __future__ import annotations

from enum import IntEnum


class TablePrefix(IntEnum):
    """Which table a row is in."""

    UNUSED = 1
    TASK = 2
    RAYLET_TASK = 3
    NODE = 4
    OBJECT = 5
    ACTOR = 6
    FUNCTION = 7
    TASK_RECONSTRUCTION = 8
    RESOURCE_USAGE_BATCH = 9
    JOB = 10
    TASK_LEASE = 12
    NODE_RESOURCE = 13
    DIRECT_ACTOR = 14
    WORKERS = 15
    PLACEMENT_GROUP_SCHEDULE = 16
    PLACEMENT_GROUP = 17
    KV = 18
    ACTOR_TASK_SPEC = 19


class TablePubsub(IntEnum):
    """Which channel an event is published on."""

    NO_PUBLISH = 1
    TASK_PUBSUB = 2
    RAYLET_TASK_PUBSUB = 3
    NODE_PUBSUB = 4
    OBJECT_PUBSUB = 5
    ACTOR_PUBSUB = 6
    RESOURCE_USAGE_BATCH_PUBSUB = 7
    TASK_LEASE_PUBSUB = 8
    JOB_PUBSUB = 9
    NODE_RESOURCE_PUBSUB = 10
    DIRECT_ACTOR_PUBSUB = 11
    WORKER_FAILURE_PUBSUB = 12


PUBLISHED_ON: dict[TablePrefix, TablePubsub] = {
    TablePrefix.TASK: TablePubsub.TASK_PUBSUB,
    TablePrefix.NODE: TablePubsub.NODE_PUBSUB,
    TablePrefix.OBJECT: TablePubsub.OBJECT_PUBSUB,
    TablePrefix.ACTOR: TablePubsub.ACTOR_PUBSUB,
    TablePrefix.JOB: TablePubsub.JOB_PUBSUB,
    TablePrefix.WORKERS: TablePubsub.WORKER_FAILURE_PUBSUB,
    TablePrefix.NODE_RESOURCE: TablePubsub.NODE_RESOURCE_PUBSUB,
}
