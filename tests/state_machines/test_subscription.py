"""Consumers of a stream: no gap, no repeat, exact counts of what was lost, whatever is slow, lost or started again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miniray.state_machines import subscription as machine
from miniray.state_machines.subscription import (
    DROP_OLDEST,
    LATEST,
    SAMPLE,
    SPILL,
    HealthChanged,
    Heartbeat,
    Overflowed,
    SequenceCheck,
    Subscription,
)


def offered(subscription, numbers, now=0.0):
    effects = []
    for number in numbers:
        effects += subscription.offer(number, number % 3, number, now)
    return effects


def test_a_full_queue_loses_its_oldest_and_says_so_once():
    mine = Subscription("c", limit=2)
    assert offered(mine, range(1, 6)) == [Overflowed("c", 1, 1)]
    assert (mine.take(10, 0.0), mine.dropped) == ([4, 5], 3)
    assert offered(mine, range(6, 9)) == [Overflowed("c", 4, 6)]


def test_the_newest_event_of_each_key_is_kept():
    mine = Subscription("c", policy=LATEST, limit=10)
    offered(mine, range(1, 9))
    assert (mine.take(10, 0.0), mine.dropped) == ([6, 7, 8], 5)
    assert mine.position == 8


def test_one_of_n_is_kept_while_the_queue_is_half_full():
    mine = Subscription("c", policy=SAMPLE, every=3, limit=4)
    offered(mine, range(1, 9))
    assert (mine.take(10, 0.0), mine.dropped) == ([1, 2, 5, 8], 4)
    offered(mine, [9])
    assert mine.take(10, 0.0) == [9]


def test_what_spills_is_read_from_the_log():
    mine = Subscription("c", policy=SPILL, limit=2)
    assert offered(mine, range(1, 6))[0] == Overflowed("c", 0, 3)
    assert mine.take(10, 0.0) == [1, 2]
    assert mine.wanted_from_log() == 2
    mine.from_log([(3, 0, 3)], 3, 0.0)
    assert mine.take(10, 0.0) == [3]
    mine.from_log([(4, 1, 4), (5, 2, 5)], 5, 0.0)
    assert not mine.catching_up
    assert (mine.take(10, 0.0), mine.dropped) == ([4, 5], 0)


def test_a_batch_that_was_not_acknowledged_comes_again():
    mine = Subscription("c", acknowledges=True)
    offered(mine, range(1, 6))
    assert mine.take(3, 0.0) == [1, 2, 3]
    assert mine.take(3, 0.0) == []
    assert not mine.acknowledge(2)
    mine.redeliver()
    assert mine.acknowledged == 2
    assert mine.take(9, 0.0) == [3, 4, 5]
    assert not mine.acknowledge()


def test_a_heartbeat_tells_position_counts_and_lag():
    mine = Subscription("c", limit=2)
    offered(mine, range(1, 4), now=1.0)
    mine.take(1, 1.5)
    assert mine.heartbeat(2.0) == Heartbeat("c", 2, 3, 1, 1000.0)


def test_health_goes_from_slow_to_dropping_to_stalled_and_back():
    mine = Subscription("c", limit=2)
    offered(mine, [1], now=0.0)
    assert mine.look(0.5) == []
    assert mine.look(2.0) == [HealthChanged("c", "ok", "slow")]
    offered(mine, [2, 3], now=2.0)
    assert mine.look(2.1) == [HealthChanged("c", "slow", "dropping")]
    assert mine.look(9.0) == [HealthChanged("c", "dropping", "stalled")]
    mine.take(10, 9.0)
    assert mine.look(9.1) == [HealthChanged("c", "stalled", "ok")]


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="unknown policy 'newest'"):
        Subscription("c", policy="newest")
    with pytest.raises(ValueError, match="at least 1"):
        Subscription("c", limit=0)


def test_the_receiver_sees_gaps_and_repeats():
    seen = []
    check = SequenceCheck(lambda *gap: seen.append(gap))
    assert [check.saw("s", number) for number in (1, 2, 5, 5, 4, 6)] == [True, True, True, False, False, True]
    assert seen == [("s", 2, 2, 5)]
    assert (check.gaps, check.missing, check.repeats, check.last("s")) == (1, 2, 2, 6)


class StreamAndConsumer(RuleBasedStateMachine):
    """A stream with a log that lags, and one consumer that is slow, dies and comes back."""

    @initialize(
        policy=st.sampled_from([DROP_OLDEST, SPILL]),
        limit=st.integers(1, 4),
        before=st.integers(0, 5),
        behind=st.one_of(st.none(), st.integers(0, 5)),
        acknowledges=st.booleans(),
    )
    def begin(self, policy, limit, before, behind, acknowledges):
        self.policy, self.limit, self.acknowledges = policy, limit, acknowledges
        self.published = self.logged = before
        since = None if behind is None else max(0, before - behind)
        self.start = before if since is None else since
        self.mine = Subscription("c", limit=limit, policy=policy, acknowledges=acknowledges, newest=before, since=since)
        self.got = []
        self.acknowledged = self.start
        self.dropped_before = 0

    @rule(count=st.integers(1, 4))
    def publish(self, count):
        for _ in range(count):
            self.published += 1
            self.mine.offer(self.published, 0, self.published, 0.0)

    @rule(count=st.integers(0, 4))
    def persist(self, count):
        self.logged = min(self.published, self.logged + count)

    @precondition(lambda self: self.mine.wanted_from_log() is not None)
    @rule(most=st.integers(1, 3))
    def read_log(self, most):
        after = self.mine.wanted_from_log()
        events = [(number, 0, number) for number in range(after + 1, min(self.logged, after + most) + 1)]
        self.mine.from_log(events, events[-1][0] if events else after, 0.0)

    @rule(most=st.integers(1, 5))
    def take(self, most):
        self.got += self.mine.take(most, 0.0)

    @precondition(lambda self: self.acknowledges and self.got)
    @rule(back=st.integers(0, 3))
    def acknowledge(self, back):
        self.mine.acknowledge(self.got[max(0, len(self.got) - 1 - back)])

    @precondition(lambda self: self.acknowledges)
    @rule()
    def come_back(self):
        """Its process died: it gets again what it has not acknowledged."""
        self.mine.redeliver()
        self.got = [number for number in self.got if number <= self.mine.acknowledged]

    @precondition(lambda self: self.policy == SPILL)
    @rule()
    def restart(self):
        """The publisher's process died: the consumer begins anew after its cursor, the log says what there was."""
        self.logged = self.published
        self.got = [number for number in self.got if number <= self.mine.acknowledged]
        self.mine = Subscription(
            "c",
            limit=self.limit,
            policy=self.policy,
            acknowledges=self.acknowledges,
            newest=self.published,
            since=self.mine.acknowledged,
        )

    @invariant()
    def in_order_and_once(self):
        if hasattr(self, "got"):
            assert self.got == sorted(set(self.got))

    @invariant()
    def counts_are_exact(self):
        if hasattr(self, "got"):
            assert self.mine.offered == self.mine.delivered + self.mine.queued() + self.mine.dropped

    def teardown(self):
        """Let everything run dry: without drops there is no gap at all, with drops they are all of the gap."""
        if not hasattr(self, "got"):
            return
        self.logged = self.published
        for _ in range(200):
            self.mine.acknowledge()
            self.got += self.mine.take(2, 0.0)
            after = self.mine.wanted_from_log()
            if after is not None:
                events = [(number, 0, number) for number in range(after + 1, min(self.logged, after + 3) + 1)]
                self.mine.from_log(events, events[-1][0] if events else after, 0.0)
        assert not self.mine.catching_up
        assert self.got == sorted(set(self.got))
        assert len(self.got) + self.mine.dropped == self.published - self.start
        if self.policy == SPILL:
            assert self.got == list(range(self.start + 1, self.published + 1))


TestStreamAndConsumer = StreamAndConsumer.TestCase
TestStreamAndConsumer.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_planted_off_by_one_is_found(monkeypatch):
    original = Subscription.from_log

    def planted(self, events, through, now):
        original(self, events, through + 1, now)

    monkeypatch.setattr(machine.Subscription, "from_log", planted)
    case = StreamAndConsumer.TestCase
    with pytest.raises(BaseException):
        case("runTest").runTest()


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 5))
def test_with_latest_each_key_ends_with_its_newest_event(steps, limit):
    mine = Subscription("c", policy=LATEST, limit=limit)
    got, newest = {}, {}
    for number, (key, takes) in enumerate(steps, 1):
        mine.offer(number, key, (key, number), 0.0)
        newest[key] = number
        if takes:
            got.update(mine.take(2, 0.0))
        assert mine.offered == mine.delivered + mine.queued() + mine.dropped
    while batch := mine.take(2, 0.0):
        got.update(batch)
    if limit > 3:
        assert got == newest
