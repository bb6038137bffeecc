"""Change feeds: what was persisted, in order, once, to each watcher at its own pace, also over restarts of the head."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from miniray.messages.durable import Change
from miniray.state_machines.change_feed import ChangeFeed, Moved, Read, Send

KV = 18


def change(sequence, key=b"k", table=KV, namespace=b""):
    return Change(sequence, table, namespace, key, b"")


def sent(effects):
    return [item.sequence for effect in effects if isinstance(effect, Send) for item in effect.changes]


def test_watchers_get_what_they_want_and_only_that():
    feed = ChangeFeed()
    feed.watch(b"w", "all", KV, 0.0)
    feed.watch(b"w", "some", KV, 0.0, prefix=b"a", namespace=b"n")
    effects = feed.was_persisted(
        [change(1), change(2, b"ab", namespace=b"n"), change(3, b"ab"), change(4, table=4)], 4, 0.0
    )
    assert {effect.consumer: sent([effect]) for effect in effects} == {"all": [1, 2, 3], "some": [2]}


def test_the_next_batch_comes_after_the_last_was_handled():
    feed = ChangeFeed()
    feed.watch(b"w", "c", KV, 0.0)
    assert sent(feed.was_persisted([change(1)], 1, 0.0)) == [1]
    assert sent(feed.was_persisted([change(2)], 2, 0.0)) == []
    assert sent(feed.handled(b"w", "c", 1, 0.0)) == [2]


def test_the_cursor_of_a_durable_consumer_moves_with_what_it_handled():
    feed = ChangeFeed()
    feed.watch(b"w", "c", KV, 0.0, durable=True)
    feed.was_persisted([change(1), change(2)], 2, 0.0)
    assert Moved("c", 2) in feed.handled(b"w", "c", 2, 0.0)
    assert feed.handled(b"w", "c", 2, 0.0) == []


def test_a_durable_consumer_that_comes_back_takes_the_place_of_its_former_self():
    feed = ChangeFeed()
    feed.watch(b"old", "c", KV, 0.0, durable=True)
    feed.watch(b"new", "c", KV, 0.0, durable=True)
    assert list(feed.watches) == [(b"new", "c")]
    feed.remove(b"new")
    assert feed.handled(b"new", "c", 1, 0.0) == []


def test_who_begins_in_the_past_reads_the_log_first():
    feed = ChangeFeed()
    feed.persisted = 5
    began, effects = feed.watch(b"w", "c", KV, 0.0, since=2)
    assert (began, effects) == (2, [Read(b"w", "c", 2, KV)])
    assert feed.was_persisted([change(6)], 6, 0.0) == []
    assert sent(feed.was_read(b"w", "c", 2, [change(4)], 5, 0.0)) == [4, 6]
    assert feed.was_read(b"w", "c", 2, [], 6, 0.0) == []  # an answer that nobody asked for


def test_what_a_former_self_had_asked_of_the_log_leaves_no_gap():
    feed = ChangeFeed()
    feed.persisted = 9
    feed.watch(b"w", "c", KV, 0.0, since=6)
    feed.stop(b"w", "c")
    feed.watch(b"w", "c", KV, 0.0, since=2)
    assert feed.was_read(b"w", "c", 6, [change(7), change(8), change(9)], 9, 0.0) == []
    assert sent(feed.was_read(b"w", "c", 2, [change(number) for number in range(3, 10)], 9, 0.0)) == [*range(3, 10)]


def test_what_was_handled_before_a_new_head_came_moves_the_cursor_there():
    feed = ChangeFeed()
    feed.persisted = 9
    feed.watch(b"w", "c", KV, 0.0, durable=True, since=8, cursor=5)
    assert feed.handled(b"w", "c", 5, 0.0) == []
    assert feed.handled(b"w", "c", 7, 0.0) == [Moved("c", 7)]
    feed.watch(b"w", "c", KV, 0.0, durable=True, since=2, cursor=7)  # it wants to see again what it had
    feed.was_read(b"w", "c", 2, [change(3)], 9, 0.0)
    assert feed.handled(b"w", "c", 3, 0.0) == [Moved("c", 3)]


class HeadsAndWatchers(RuleBasedStateMachine):
    """Writes, a journal that lags, three watchers with queues of their own, and heads that die."""

    @initialize(limits=st.lists(st.integers(1, 4), min_size=3, max_size=3))
    def begin(self, limits):
        self.limits = limits
        self.journal = []
        self.unwritten = 0
        self.got = {name: [] for name in ("a", "b", "c")}
        self.on_wire = []  #: messages to watchers, which die with the head
        self.reads = []
        self.feed = ChangeFeed()
        for name in self.got:
            self.join(name, 0)

    def join(self, name, since):
        limit = self.limits["abc".index(name)]
        self.carry_out(self.feed.watch(name.encode(), name, KV, 0.0, since=since, limit=limit)[1])

    def carry_out(self, effects):
        for effect in effects:
            if isinstance(effect, Send):
                self.on_wire.append(effect)
            elif isinstance(effect, Read):
                self.reads.append(effect)

    @rule(count=st.integers(1, 5))
    def write(self, count):
        self.unwritten += count

    @rule(count=st.integers(1, 5))
    def persist(self, count):
        count = min(count, self.unwritten)
        self.unwritten -= count
        new = [change(len(self.journal) + number + 1) for number in range(count)]
        self.journal += new
        self.carry_out(self.feed.was_persisted(new, len(self.journal), 0.0))

    @precondition(lambda self: getattr(self, "reads", None))
    @rule(most=st.integers(1, 3))
    def read(self, most):
        request = self.reads.pop(0)
        found = self.journal[request.after : request.after + most]
        through = found[-1].sequence if len(found) == most else len(self.journal)
        self.carry_out(self.feed.was_read(request.watcher, request.consumer, request.after, found, through, 0.0))

    @precondition(lambda self: getattr(self, "on_wire", None))
    @rule(data=st.data())
    def deliver(self, data):
        message = self.on_wire.pop(data.draw(st.integers(0, len(self.on_wire) - 1)))
        self.got[message.consumer] += [item.sequence for item in message.changes]
        handled = self.got[message.consumer][-1]
        self.carry_out(self.feed.handled(message.watcher, message.consumer, handled, 0.0))

    @rule()
    def the_head_dies(self):
        """What it had not written is lost, and what was on the wire; watchers go on after what they got."""
        self.unwritten = 0
        self.on_wire, self.reads = [], []
        self.feed = ChangeFeed()
        self.feed.persisted = len(self.journal)
        for name, got in self.got.items():
            self.join(name, got[-1] if got else 0)

    def teardown(self):
        if not hasattr(self, "got"):
            return
        for _ in range(1000):
            if self.on_wire:
                message = self.on_wire.pop(0)
                self.got[message.consumer] += [item.sequence for item in message.changes]
                self.carry_out(self.feed.handled(message.watcher, message.consumer, message.changes[-1].sequence, 0.0))
            elif self.reads:
                self.read_all()
            else:
                break
        for got in self.got.values():
            assert got == list(range(1, len(self.journal) + 1))

    def read_all(self):
        request = self.reads.pop(0)
        found = self.journal[request.after :]
        through = len(self.journal)
        self.carry_out(self.feed.was_read(request.watcher, request.consumer, request.after, found, through, 0.0))


HeadsAndWatchers.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestHeadsAndWatchers = HeadsAndWatchers.TestCase
