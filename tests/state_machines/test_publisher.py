"""The live path: numbered events, a queue for each subscriber, drops that are counted where they happen."""

from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.publisher import Publisher

CHANNEL = 6


def take_all(publisher, name):
    events = []
    while batch := publisher.take(name):
        events += batch
    return events


def test_subscribers_get_what_they_asked_for_in_order():
    publisher = Publisher()
    publisher.subscribe(b"all", CHANNEL)
    publisher.subscribe(b"one", CHANNEL, b"k")
    assert publisher.publish(CHANNEL, b"other", b"1") == [b"all"]
    assert publisher.publish(CHANNEL, b"k", b"2") == [b"all", b"one"]
    assert [(event.sequence, event.value) for event in take_all(publisher, b"all")] == [(1, b"1"), (2, b"2")]
    assert [(event.sequence, event.value) for event in take_all(publisher, b"one")] == [(2, b"2")]


def test_a_slow_subscriber_loses_its_oldest_events_alone():
    publisher = Publisher()
    publisher.subscribe(b"slow", CHANNEL, limit=2)
    publisher.subscribe(b"fast", CHANNEL)
    for number in range(5):
        publisher.publish(CHANNEL, b"k", b"%d" % number)
    assert [event.value for event in take_all(publisher, b"slow")] == [b"3", b"4"]
    assert publisher.subscribers[b"slow"].subscription.dropped == 3
    assert len(take_all(publisher, b"fast")) == 5


def test_one_batch_is_on_the_way_until_it_is_acknowledged():
    publisher = Publisher()
    publisher.subscribe(b"s", CHANNEL, acknowledges=True)
    publisher.publish(CHANNEL, b"k", b"1")
    assert len(publisher.take(b"s")) == 1
    assert publisher.publish(CHANNEL, b"k", b"2") == []
    assert publisher.take(b"s") == []
    assert publisher.acknowledge(b"s")
    assert len(publisher.take(b"s")) == 1
    assert not publisher.acknowledge(b"s")


def test_who_unsubscribed_or_left_hears_nothing():
    publisher = Publisher()
    publisher.subscribe(b"a", CHANNEL, b"k")
    publisher.subscribe(b"b", CHANNEL)
    publisher.unsubscribe(b"a", CHANNEL, b"k")
    publisher.remove(b"b")
    assert publisher.publish(CHANNEL, b"k", b"") == []
    assert not publisher.subscribers


@given(
    st.lists(st.sampled_from(["publish", "take", "acknowledge"]), max_size=60),
    st.integers(1, 5),
    st.booleans(),
)
def test_what_is_delivered_and_dropped_is_what_was_published(steps, limit, acknowledges):
    publisher = Publisher()
    publisher.subscribe(b"s", CHANNEL, limit=limit, acknowledges=acknowledges)
    published, delivered = 0, []
    for step in steps:
        if step == "publish":
            publisher.publish(CHANNEL, b"k", b"")
            published += 1
        elif step == "take":
            delivered += publisher.take(b"s", 2)
        else:
            publisher.acknowledge(b"s")
    subscription = publisher.subscribers[b"s"].subscription
    assert len(delivered) + subscription.queued() + subscription.dropped == published
    numbers = [event.sequence for event in delivered]
    assert numbers == sorted(set(numbers))
