"""Consumer groups: each event once per group, in order for each key, whoever joins and leaves."""

from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.consumer_group import ConsumerGroup


def numbers(batch):
    return [event.sequence for event in batch]


def test_events_are_shared_and_a_key_stays_with_its_member():
    group = ConsumerGroup()
    group.join("a")
    group.join("b")
    assert [group.offer(number, key, None) for number, key in enumerate("xyxy", 1)] == ["a", "b", "a", "b"]
    assert numbers(group.take("a", 10)) == [1, 3]
    assert numbers(group.take("b", 10)) == [2, 4]
    assert group.acknowledged() == 0
    group.acknowledge("a")
    assert group.acknowledged() == 1
    group.acknowledge("b")
    assert group.acknowledged() is None


def test_what_a_member_had_not_acknowledged_goes_to_another_one():
    group = ConsumerGroup()
    group.join("a")
    for number in range(1, 5):
        group.offer(number, "k", None)
    group.take("a", 2)
    group.acknowledge("a", 1)
    group.leave("a")
    assert group.queued() == 3
    group.join("b")
    assert numbers(group.take("b", 10)) == [2, 3, 4]


def test_what_is_left_behind_comes_before_what_is_newer():
    group = ConsumerGroup()
    group.join("b")
    group.offer(1, "x", None)
    group.join("a")
    for number in range(2, 6):
        group.offer(number, f"k{number}", None)
    group.leave("b")
    assert group.acknowledged() == 0
    assert numbers(group.take("a", 2)) == [1, 2]
    group.acknowledge("a", 1)
    assert group.acknowledged() == 1


def test_the_oldest_that_waits_is_dropped_and_counted():
    group = ConsumerGroup(limit=2)
    for number in range(1, 5):
        group.offer(number, number, None)
    group.join("a")
    assert numbers(group.take("a", 10)) == [3, 4]
    assert group.dropped == 2


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.sampled_from("xyz")),
            st.tuples(st.sampled_from(["join", "leave", "take", "acknowledge"]), st.sampled_from("abc")),
        ),
        max_size=80,
    )
)
def test_every_event_is_done_once_and_in_the_order_of_its_key(steps):
    group = ConsumerGroup()
    sequence, done, key_of, out = 0, [], {}, {}
    for step, name in steps:
        if step == "offer":
            sequence += 1
            key_of[sequence] = name
            group.offer(sequence, name, None)
        elif step == "join":
            group.join(name)
            out.pop(name, None)
        elif name not in group.members:
            continue
        elif step == "leave":
            group.leave(name)
            out.pop(name, None)
        elif step == "take":
            out[name] = numbers(group.take(name, 2)) or out.get(name, [])
            busy = [key_of[number] for batch in out.values() for number in batch]
            assert all(len({n for n in out if key in {key_of[x] for x in out[n]}}) == 1 for key in busy)
        else:
            done += out.pop(name, [])
            group.acknowledge(name)
    group.join("last")
    for name in list(group.members):
        if name != "last":
            group.leave(name)
    while batch := group.take("last", 5):
        done += numbers(batch)
        group.acknowledge("last")
    assert sorted(done) == list(range(1, sequence + 1))
    for key in "xyz":
        mine = [number for number in done if key_of[number] == key]
        assert mine == sorted(mine)
