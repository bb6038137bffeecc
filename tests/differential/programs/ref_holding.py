"""Who holds an object and why; refs whose owner nobody knows."""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import pickle
import time

from ..catalog import program
from ..observe import outcome, until

AREA = "objects"
SESSION = {"num_cpus": 2}

TYPES = ("LOCAL_REFERENCE", "PINNED_IN_MEMORY", "USED_BY_PENDING_TASK", "CAPTURED_IN_OBJECT", "ACTOR_HANDLE")


def rows(ray, **options):
    """The rows of the memory table: the process's kind, the reference's type, and the id, for each."""
    internal_api = importlib.import_module(f"{ray.__name__}._private.internal_api")
    found = []
    address = ray.get_runtime_context().gcs_address
    for line in internal_api.memory_summary(address, line_wrap=False, **options).splitlines():
        kinds = [kind for kind in TYPES if kind in line]
        if kinds and line.split("|")[-1].strip().isalnum():
            found.append(("Driver" if "Driver" in line else "Worker", kinds[0], line.split("|")[-1].strip()))
    return found


def why(ray, ref_hex, kind="Driver"):
    """The types of reference under which processes of that kind hold an object."""
    return sorted(row[1] for row in rows(ray) if row[0] == kind and row[2] == ref_hex)


@program("objects/memory-table")
def why_objects_are_held(ray):
    import numpy

    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def sleep(self, refs):
            time.sleep(100)

    local = ray.put(numpy.ones(100_000))
    viewed = ray.put(numpy.ones(100_000))
    view = ray.get(viewed)
    captured = ray.put(numpy.ones(100_000))
    captured_hex = captured.hex()
    box = ray.put([captured])
    del captured
    keeper = Keeper.remote()
    ray.get(keeper.keep.remote([]))
    used = ray.put(numpy.ones(100_000))
    pending = keeper.sleep.remote([used])
    until(lambda: why(ray, captured_hex) and why(ray, used.hex()) == ["USED_BY_PENDING_TASK"])
    answer = [
        why(ray, local.hex()),
        why(ray, viewed.hex()),
        why(ray, captured_hex),
        why(ray, box.hex()),
        why(ray, used.hex()),
        why(ray, pending.hex()),
        [row[1] for row in rows(ray) if row[1] == "ACTOR_HANDLE"],
    ]
    del view
    gone = viewed.hex()
    until(lambda: why(ray, gone) == ["LOCAL_REFERENCE"])
    del viewed
    until(lambda: not why(ray, gone))
    ray.kill(keeper)
    return [*answer, why(ray, gone)]


@program("objects/memory-table")
def parts_of_the_memory_table(ray):
    internal_api = importlib.import_module(f"{ray.__name__}._private.internal_api")
    ref = ray.put(1)
    address = ray.get_runtime_context().gcs_address
    texts = {
        "default": internal_api.memory_summary(address),
        "by stack": internal_api.memory_summary(address, group_by="STACK_TRACE", sort_by="PID", units="KB"),
        "stats": internal_api.memory_summary(address, stats_only=True),
    }
    phrases = [
        "Grouping by node address",
        "Grouping by stack trace",
        "Sorting by object size",
        "Sorting by pid",
        "Display all entries per group",
        "Mem Used by Objects",
        "Local References",
        "Captured in Objects",
        "--- Object references for node address:",
        "RAY_record_ref_creation_sites=1",
        "--- Aggregate object store stats across all nodes ---",
        "Plasma memory usage",
        ref.hex(),
    ]
    return {name: [phrase in text for phrase in phrases] for name, text in texts.items()}


@program("objects/unknown-owner")
def refs_that_belong_to_no_session(ray):
    @ray.remote
    def same(value):
        return value

    def made_by_hand():
        return ray.ObjectRef.from_binary(b"1" * 28)

    return [
        outcome(lambda: same.remote(made_by_hand())),
        outcome(lambda: same.remote([made_by_hand()])),
        outcome(lambda: same.remote(value=made_by_hand())),
        outcome(lambda: ray.put([made_by_hand()])),
        made_by_hand().owner_address() == b"",
        pickle.loads(pickle.dumps(made_by_hand())) == made_by_hand(),
        outcome(lambda: ray.ObjectRef("1" * 28)),
        outcome(lambda: ray.ObjectRef(b"1")),
        outcome(lambda: ray.ObjectRef.from_hex("1" * 56), "none"),
        ray.ObjectRef.from_random() != ray.ObjectRef.from_random(),
    ]


@program("objects/put-owner")
def put_has_no_owner(ray):
    @ray.remote
    class Owner:
        pass

    owner = Owner.remote()
    return [
        ray.get(ray.put(1, _owner=None)),
        outcome(lambda: ray.put(1, _owner=owner)),
        outcome(lambda: ray.put(1, _owner=3)),
    ]


@program("objects/unknown-owner", "objects/ref-pickle", fresh=True)
def refs_outlive_their_session_as_ids(ray):
    ray.init(num_cpus=1)
    ref = ray.put(1)
    ray.shutdown()
    return [
        ref.hex() == ref.binary().hex(),
        pickle.loads(pickle.dumps(ref)) == ref,
        str(ref) == f"ObjectRef({ref.hex()})",
        hash(ref) == hash(pickle.loads(pickle.dumps(ref))),
    ]
