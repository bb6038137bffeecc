"""Ids: layout, errors, and the generators of the hot path."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest

from miniray import ids

ALL = [
    ids.JobID,
    ids.ActorID,
    ids.TaskID,
    ids.ObjectID,
    ids.NodeID,
    ids.WorkerID,
    ids.FunctionID,
    ids.ActorClassID,
    ids.ClusterID,
    ids.UniqueID,
    ids.PlacementGroupID,
]
SIZES = {"JobID": 4, "ActorID": 16, "TaskID": 24, "PlacementGroupID": 18}


@pytest.mark.parametrize("cls", ALL)
def test_an_id_is_its_bytes(cls: type[ids.BaseID]) -> None:
    size = SIZES.get(cls.__name__, 28)
    data = bytes(range(size))
    an_id = cls(data)
    assert cls.size() == an_id.size() == size
    assert an_id.binary() == bytes(an_id) == data
    assert an_id.hex() == data.hex()
    assert repr(an_id) == f"{cls.__name__}({data.hex()})"
    assert cls.from_binary(data) == an_id
    if cls is not ids.UniqueID:
        assert cls.from_hex(data.hex()) == cls.from_hex(data.hex().encode()) == an_id
    assert hash(cls(data)) == hash(an_id)
    assert not an_id.is_nil()
    assert cls.nil().is_nil() and cls.nil().binary() == b"\xff" * size
    assert pickle.loads(pickle.dumps(an_id)) == an_id
    assert copy.copy(an_id) is an_id and copy.deepcopy(an_id) is an_id


@pytest.mark.parametrize("cls", ALL)
def test_wrong_sizes_and_types_are_refused_with_rays_words(cls: type[ids.BaseID]) -> None:
    with pytest.raises(ValueError, match=f"ID string needs to have length {cls.size()}, got 3"):
        cls(b"abc")
    for wrong in ("abc", 3, None, bytearray(b"abc")):
        with pytest.raises(TypeError, match=r"Unsupported type: <class '\w+'>, expected bytes"):
            cls(wrong)  # type: ignore[arg-type]
    if cls is not ids.UniqueID:
        with pytest.raises(TypeError, match="expected bytes, int found"):
            cls.from_hex(3)  # type: ignore[arg-type]


def test_text_makes_the_kinds_of_unique_ids_only_as_in_ray() -> None:
    with pytest.raises(NotImplementedError):
        ids.UniqueID.from_hex("00" * 28)


@pytest.mark.parametrize("text", ["ab", "", "zz" * 4, "0 000000", "é1000000", "  010203"])
def test_text_that_is_no_id_gives_the_nil_id_as_in_ray(text: str) -> None:
    assert ids.JobID.from_hex(text).is_nil()


def test_an_id_cannot_be_changed() -> None:
    job = ids.JobID.from_int(1)
    with pytest.raises(AttributeError):
        job._bytes = b"abcd"
    with pytest.raises(AttributeError):
        job.x = 1
    with pytest.raises(AttributeError):
        del job._bytes


def test_ids_of_different_types_differ_even_with_the_same_bytes() -> None:
    assert ids.NodeID(b"a" * 28) != ids.WorkerID(b"a" * 28)
    assert ids.NodeID(b"a" * 28) != ids.UniqueID(b"a" * 28)
    assert ids.JobID(b"abcd") != b"abcd"


def test_the_base_class_has_no_instances() -> None:
    with pytest.raises(NotImplementedError):
        ids.BaseID(b"")


def test_job_ids_are_little_endian_numbers() -> None:
    assert ids.JobID.from_int(258).binary() == b"\x02\x01\x00\x00"
    assert ids.JobID.from_int(258).int() == 258
    with pytest.raises(AssertionError, match=r"Maximum JobID integer is 2\*\*32 - 1"):
        ids.JobID.from_int(2**32)
    with pytest.raises(OverflowError):
        ids.JobID.from_int(-1)


def test_actor_ids_end_with_their_job() -> None:
    job = ids.JobID.from_int(7)
    assert ids.ActorID.of(job, ids.TaskID.nil(), 0).job_id == job
    assert ids.ActorID.of(job, ids.TaskID.nil(), 0) != ids.ActorID.of(job, ids.TaskID.nil(), 0)


def test_task_ids_hold_actor_and_job() -> None:
    job = ids.JobID.from_int(1)
    actor = ids.ActorID.of(job, ids.TaskID.nil(), 0)
    parent = ids.TaskID.for_driver_task(job)
    assert parent.hex() == "ff" * 20 + "01000000"
    assert ids.TaskID.for_actor_creation_task(actor).hex() == "ff" * 8 + actor.hex()
    normal = ids.TaskID.for_normal_task(job, parent, 3)
    assert normal.hex()[16:] == "ff" * 12 + "01000000"
    assert normal == ids.TaskID.for_normal_task(job, parent, 3) != ids.TaskID.for_normal_task(job, parent, 4)
    call = ids.TaskID.for_actor_task(job, parent, 3, actor)
    assert call.actor_id() == actor and call.job_id() == job
    assert ids.TaskID.for_fake_task(job).job_id() == job


def test_object_ids_hold_their_task_and_index() -> None:
    task = ids.TaskID.for_fake_task(ids.JobID.from_int(9))
    an_object = ids.ObjectID(ids.object_id(task.binary(), 2))
    assert an_object.task_id() == task
    assert an_object.index() == 2 == ids.object_index_of(an_object.binary())
    assert an_object.job_id() == ids.JobID.from_int(9)
    assert an_object.hex().endswith("02000000")


def test_placement_group_ids_end_with_their_job() -> None:
    job = ids.JobID.from_int(5)
    assert ids.PlacementGroupID.of(job).binary().endswith(job.binary())
    assert ids.placement_group_id(job.binary(), bytes(14)) == bytes(14) + job.binary()
    with pytest.raises(AssertionError):
        ids.PlacementGroupID.of(3)  # type: ignore[arg-type]


def test_random_ids_differ() -> None:
    assert ids.NodeID.from_random() != ids.NodeID.from_random()


def test_raw_bytes_tell_where_they_come_from() -> None:
    job = ids.JobID.from_int(3).binary()
    new_task = ids.TaskIdGenerator(job, bytes(range(8)))
    new_actor = ids.ActorIdGenerator(job, bytes(range(12)))
    actor, task = new_actor(), new_task()
    call = new_task.for_actor(actor)
    assert len(actor) == 16 and len(task) == len(call) == 24
    assert task[8:] == b"\xff" * 12 + job
    assert ids.actor_id_of(call) == actor == ids.actor_id_of(ids.object_id(call, 1))
    assert ids.task_id_of(ids.object_id(call, 1)) == call
    assert not ids.is_actor_task(task) and ids.is_actor_task(call)
    assert not ids.is_actor_task(ids.driver_task_id(job))
    assert ids.is_actor_task(ids.actor_creation_task_id(actor))
    group = ids.placement_group_id(job, bytes(14))
    for an_id in (job, actor, task, call, ids.object_id(task, 1), group, ids.driver_task_id(job)):
        assert ids.job_id_of(an_id) == job


@pytest.mark.parametrize("start", [bytes(8), b"\xff" * 8])
def test_generated_ids_are_unique_in_all_threads(start: bytes) -> None:
    generate = ids.TaskIdGenerator(b"\x01\x00\x00\x00", start)
    made: list[bytes] = []

    def draw() -> None:
        made.extend(generate() for _ in range(2000))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) == 8000
    assert not any(task.startswith(b"\xff" * 8) for task in made)


def test_a_generator_wants_enough_randomness() -> None:
    with pytest.raises(ValueError, match="8 random bytes"):
        ids.TaskIdGenerator(b"\x01\x00\x00\x00", b"short")
