"""The order of an actor's calls: a model of callers, a lossy network and an actor that restarts."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from miniray.messages.control import ALIVE
from miniray.messages.tasks import TaskPush
from miniray.state_machines.actor_submission import WINDOW, ActorCall, ActorClient
from miniray.state_machines.task_ordering import CallerStream


def push(number: int) -> TaskPush:
    return TaskPush(b"%024d" % number, 2, b"", b"jjjj", None, 1, "A.f")


def test_calls_that_arrive_in_any_order_begin_in_theirs() -> None:
    stream: CallerStream[str] = CallerStream()
    assert stream.arrive(1, "b") == []
    assert stream.waiting() == 1
    assert stream.arrive(0, "a") == ["a", "b"]
    assert stream.arrive(2, "c") == ["c"]


def test_a_call_sent_twice_runs_once() -> None:
    for ordered in (True, False):
        stream: CallerStream[str] = CallerStream(ordered)
        assert stream.arrive(0, "a") == ["a"]
        assert stream.arrive(0, "a") == []
        assert stream.arrive(2, "c") == ([] if ordered else ["c"])
        assert stream.arrive(2, "c") == []


def test_a_skipped_number_stalls_nothing() -> None:
    stream: CallerStream[str] = CallerStream()
    assert stream.arrive(1, "b") == []
    assert stream.skip(0) == ["b"]
    assert stream.skip(2) == []
    assert stream.arrive(3, "d") == ["d"]


def test_an_unordered_actor_begins_calls_as_they_come() -> None:
    stream: CallerStream[str] = CallerStream(ordered=False)
    assert [stream.arrive(number, str(number)) for number in (3, 1, 0, 2)] == [["3"], ["1"], ["0"], ["2"]]
    assert stream.expected == 4


class Port:
    """What the caller's machine wants done."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, ActorCall]] = []
        self.failed: list[ActorCall] = []

    def push_call(self, client: ActorClient, call: ActorCall, urgent: bool) -> None:
        self.sent.append((client.incarnation, call.push.sequence_number, call))

    def fail_call(self, client: ActorClient, call: ActorCall) -> None:
        self.failed.append(call)


class OrderedCalls(RuleBasedStateMachine):
    """One caller and one actor: pushes are duplicated and reordered, the actor's process dies and comes back."""

    retries = st.sampled_from([0, 1, -1])

    def __init__(self) -> None:
        super().__init__()
        self.port = Port()
        self.client = ActorClient(b"a" * 16, self.port, ordered=True)
        self.client.alive(0, "address")
        self.incarnation = 0
        self.stream: CallerStream[ActorCall] = CallerStream()
        self.calls: list[ActorCall] = []
        self.began: list[tuple[int, ActorCall]] = []
        self.answered: list[ActorCall] = []
        self.network: list[tuple[int, int, ActorCall]] = []
        self.unready: list[ActorCall] = []

    def collect(self) -> None:
        self.network += self.port.sent
        self.port.sent = []

    @rule(retries=retries, ready=st.booleans())
    def call(self, retries: int, ready: bool) -> None:
        call = ActorCall(push(len(self.calls)), self.client, retries)
        self.calls.append(call)
        if not ready:
            call.unready = 1
            self.unready.append(call)
        self.client.submit(call)
        self.collect()

    @rule(data=st.data())
    def arguments_arrive(self, data: Any) -> None:
        if self.unready:
            call = self.unready.pop(data.draw(st.integers(0, len(self.unready) - 1)))
            call.unready = 0
            if call not in self.port.failed:
                self.client.ready(call)
            self.collect()

    @rule(data=st.data(), twice=st.booleans())
    def a_push_arrives(self, data: Any, twice: bool) -> None:
        if not self.network:
            return
        index = data.draw(st.integers(0, len(self.network) - 1))
        incarnation, number, call = self.network[index]
        if not twice:
            del self.network[index]
        if incarnation == self.incarnation and self.client.state == ALIVE:
            self.began += [(incarnation, begun) for begun in self.stream.arrive(number, call)]

    @rule(data=st.data())
    def a_reply_arrives(self, data: Any) -> None:
        waiting = [call for incarnation, call in self.began if incarnation == self.incarnation]
        waiting = [call for call in waiting if call.push.task_id in self.client.in_flight]
        if waiting and self.client.state == ALIVE:
            call = waiting[data.draw(st.integers(0, len(waiting) - 1))]
            assert self.client.answered(call.push.task_id) is call
            self.answered.append(call)
            self.client.pump()
            self.collect()

    @rule()
    def the_process_dies(self) -> None:
        self.client.restarting()
        self.collect()

    @rule()
    def the_process_is_back(self) -> None:
        if self.client.state != ALIVE:
            self.incarnation += 1
            self.stream = CallerStream()
            self.client.alive(self.incarnation, "address")
            self.collect()

    @rule(data=st.data())
    def a_call_is_cancelled(self, data: Any) -> None:
        unsent = [call for call in self.calls if not call.sent and call in self.client.queue]
        if unsent:
            call = unsent[data.draw(st.integers(0, len(unsent) - 1))]
            assert self.client.cancel(call)
            self.client.pump() if self.client.state == ALIVE else None
            self.collect()

    @invariant()
    def calls_begin_in_the_order_they_were_made(self) -> None:
        for incarnation in range(self.incarnation + 1):
            began = [self.calls.index(call) for process, call in self.began if process == incarnation]
            assert began == sorted(began)

    @invariant()
    def no_call_begins_twice_in_one_process_and_only_with_retries_in_two(self) -> None:
        for call in self.calls:
            processes = [process for process, begun in self.began if begun is call]
            assert len(set(processes)) == len(processes)
            if call.retries_left == 0 and call.attempt == 0:
                assert len(processes) <= 1

    @invariant()
    def every_call_is_somewhere(self) -> None:
        queued = set(map(id, self.client.queue)) | set(map(id, self.client.undecided))
        in_flight = set(map(id, self.client.in_flight.values()))
        done = set(map(id, self.answered)) | set(map(id, self.port.failed))
        for call in self.calls:
            assert call.cancelled or id(call) in queued | in_flight | done
            assert not (id(call) in done and id(call) in queued | in_flight)

    @invariant()
    def the_window_holds(self) -> None:
        assert len(self.client.in_flight) <= WINDOW


TestOrderedCalls = OrderedCalls.TestCase
TestOrderedCalls.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_model_finds_a_stream_that_runs_duplicates() -> None:
    class Forgetful(CallerStream[ActorCall]):
        def arrive(self, number: int, item: ActorCall) -> list[ActorCall]:
            if number < self.expected:
                return [item]
            return super().arrive(number, item)

    machine = OrderedCalls()
    machine.stream = Forgetful()
    machine.call(0, True)
    incarnation, number, call = machine.network[0]
    for _ in range(2):
        machine.began += [(incarnation, begun) for begun in machine.stream.arrive(number, call)]
    try:
        machine.no_call_begins_twice_in_one_process_and_only_with_retries_in_two()
    except AssertionError:
        return
    raise AssertionError("the planted duplicate was not found")
