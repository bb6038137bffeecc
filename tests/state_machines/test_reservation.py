"""Nobody starves: large demands behind streams of small ones, and what a reservation may not do."""

import msgspec

from miniray.messages.control import LeaseSpec
from miniray.messages.placement import PlacementGroupSpec
from miniray.state_machines.lease_record import Place, Revoke
from miniray.state_machines.placement import CREATED, PENDING
from miniray.state_machines.reservation import AFTER, FIRST
from miniray.state_machines.resources import UNIT
from miniray.state_machines.scheduler import Scheduler

NODE = b"node"
JOB_A, JOB_B = b"jobA", b"jobB"


def machine(cpus=2):
    scheduler = Scheduler()
    scheduler.add_node(NODE, {"CPU": cpus * UNIT}, {})
    return scheduler


def spec(cpus, job=JOB_A):
    return LeaseSpec({"CPU": cpus * UNIT}, job)


class Stream:
    """Owners whose demand never ends; a revoked lease comes back when its task of so many seconds is done."""

    def __init__(self, scheduler, seconds):
        self.scheduler = scheduler
        self.seconds = seconds
        self.back = []  # (when, lease id)

    def step(self, now):
        """What happens at this moment; the leases placed."""
        for when, lease_id in list(self.back):
            if when <= now:
                self.back.remove((when, lease_id))
                self.scheduler.end(lease_id)
        placed = []
        for effect in self.scheduler.schedule(now):
            if isinstance(effect, Place):
                self.scheduler.granted(effect.lease.lease_id, b"w")
                placed.append(effect.lease)
            elif isinstance(effect, Revoke):
                self.back.append((now + self.seconds * (1 + effect.lease_id % 3) / 3, effect.lease_id))
        return placed

    def until_placed(self, claim_key, begin, end):
        """When a lease of this claim is placed."""
        now = begin
        while now < end:
            if any(lease.claim.key == claim_key for lease in self.step(now)):
                return now - begin
            now += 0.005
        return None


def test_a_large_demand_behind_an_endless_stream_of_small_ones_starts_within_a_second():
    for job in (JOB_A, JOB_B):
        scheduler = machine(2)
        scheduler.demand(b"stream", 1, spec(1), 1_000_000, 0.0)
        stream = Stream(scheduler, 0.01)
        stream.step(0.0)
        scheduler.demand(b"large", 1, spec(2, job), 1, 1.0)
        took = stream.until_placed((b"large", 1), 1.0, 10.0)
        assert took is not None
        assert took < 1.0


def test_a_large_demand_behind_many_small_streams_starts_within_a_second():
    scheduler = machine(4)
    for number in range(8):
        scheduler.demand(b"stream%d" % number, 1, spec(1), 1_000_000, 0.0)
    stream = Stream(scheduler, 0.01)
    stream.step(0.0)
    scheduler.demand(b"large", 1, spec(4), 1, 1.0)
    took = stream.until_placed((b"large", 1), 1.0, 10.0)
    assert took is not None
    assert took < 1.0


def test_what_is_placed_before_anything_overtakes_is_not_held_back():
    scheduler = machine(2)
    scheduler.demand(b"first", 1, spec(1), 1, 0.0)
    (lease,) = Stream(scheduler, 1000.0).step(0.0)
    assert lease.claim.owner == b"first"
    scheduler.demand(b"large", 1, spec(2), 1, 0.0)
    scheduler.schedule(0.0)
    scheduler.schedule(10 * AFTER)
    assert not scheduler.reservations.by_pool
    scheduler.demand(b"small", 1, spec(1), 1, 1.0)
    assert [effect.lease.claim.owner for effect in scheduler.schedule(1.0) if isinstance(effect, Place)] == [b"small"]


def reserved():
    """A large claim that was overtaken, with one of its two CPUs kept for it."""
    scheduler = machine(2)
    scheduler.demand(b"stream", 1, spec(1), 1_000_000, 0.0)
    leases = Stream(scheduler, 1000.0).step(0.0)
    scheduler.demand(b"large", 1, spec(2), 1, 0.0)
    scheduler.schedule(0.0)
    scheduler.end(leases[0].lease_id)
    (_again,) = Stream(scheduler, 1000.0).step(0.01)
    scheduler.schedule(0.01 + AFTER)
    assert list(scheduler.reservations.by_pool) == [NODE]
    scheduler.end(leases[1].lease_id)
    return scheduler


def placed(scheduler, now):
    return [effect.lease.claim.owner for effect in scheduler.schedule(now) if isinstance(effect, Place)]


def test_deeper_tasks_are_not_held_back_for_those_who_may_wait_for_them():
    scheduler = reserved()
    assert placed(scheduler, 0.2) == []
    scheduler.demand(b"child", 1, spec(1), 1, 0.2, depth=1)
    assert placed(scheduler, 0.2) == [b"child"]


def test_a_reservation_ends_after_a_while_and_comes_again_for_longer():
    scheduler = reserved()
    assert placed(scheduler, 0.2) == []
    (reservation,) = set(scheduler.reservations.by_pool.values())
    assert placed(scheduler, reservation.until + 0.001) in ([], [b"stream"])
    assert placed(scheduler, reservation.until + 0.002) in ([], [b"stream"])
    assert not scheduler.reservations.by_pool
    scheduler.schedule(reservation.until + FIRST + 0.01)
    (again,) = set(scheduler.reservations.by_pool.values())
    assert again.until - (reservation.until + FIRST + 0.01) == 2 * FIRST


def test_a_demand_that_is_withdrawn_keeps_nothing():
    scheduler = reserved()
    scheduler.withdraw(b"large", 1)
    assert not scheduler.reservations.by_pool
    assert placed(scheduler, 0.2) == [b"stream"]


def lease_of(scheduler, now):
    """The leases that one pass places, with their workers."""
    placed = [effect.lease for effect in scheduler.schedule(now) if isinstance(effect, Place)]
    for lease in placed:
        scheduler.granted(lease.lease_id, b"w")
    return placed


def test_those_who_want_the_same_are_not_kept_waiting_for_each_other():
    scheduler = machine(1)
    scheduler.demand(b"owner", 1, spec(1), 2, 0.0)
    [first] = lease_of(scheduler, 0.0)
    scheduler.demand(b"owner", 2, spec(1), 1, 0.0)  # it has had nothing yet: it is its turn
    claim = scheduler.claims[b"owner", 1]
    scheduler.reservations._begin(claim.key, {NODE: claim.spec.resources}, 0, 0.2, claim.need)
    scheduler.end(first.lease_id)
    [second] = lease_of(scheduler, 0.2)
    assert second.claim.key == (b"owner", 2)
    scheduler.end(second.lease_id)
    assert [lease.claim.key for lease in lease_of(scheduler, 0.3)] == [(b"owner", 1)]


def test_room_that_a_reservation_gave_up_is_given_away_at_once():
    scheduler = machine(1)
    scheduler.demand(b"owner", 1, spec(1, JOB_A), 1, 0.0)
    [lease] = lease_of(scheduler, 0.0)
    scheduler.demand(b"owner", 2, spec(0.5, JOB_B), 1, 0.0)
    scheduler.reservations._begin((b"owner", 9), {NODE: {"CPU": UNIT}}, 0, 0.0)
    scheduler.end(lease.lease_id)
    assert not lease_of(scheduler, 0.5)
    assert not lease_of(scheduler, FIRST)
    assert scheduler.wake_at == FIRST
    assert [lease.claim.key for lease in lease_of(scheduler, scheduler.wake_at)] == [(b"owner", 2)]


def test_an_actor_that_holds_nothing_is_placed_beside_a_reservation():
    scheduler = reserved()
    scheduler.demand(b"head", 7, spec(1), 1, 0.2, held={})
    assert [effect.lease.claim.held for effect in scheduler.schedule(0.2) if isinstance(effect, Place)] == [{}]
    scheduler.demand(b"head", 8, spec(1), 1, 0.2, held={"CPU": UNIT})
    assert not [effect for effect in scheduler.schedule(0.2) if isinstance(effect, Place)]


def test_a_group_does_not_take_what_is_kept_for_others_unless_they_may_wait_for_it():
    scheduler = reserved()

    def create(number, depth):
        spec = PlacementGroupSpec(b"%d" % number, JOB_A, "", "ns", "PACK", [{"CPU": UNIT}], depth=depth)
        group, _ = scheduler.groups.create(spec, 0.2)
        scheduler.schedule_groups(0.2)
        return group

    group = create(1, 0)
    assert group.state == PENDING
    assert create(2, 1).state == CREATED
    scheduler.remove_group(b"2")
    scheduler.withdraw(b"large", 1)  # nothing is kept any more
    scheduler.schedule_groups(0.3)
    assert group.state == CREATED


def test_what_is_kept_in_one_place_is_free_when_the_claim_was_served_in_another():
    scheduler = reserved()
    bound = LeaseSpec({"CPU": UNIT}, JOB_B, strategy=msgspec.msgpack.encode(["node", NODE, False, False, False]))
    scheduler.demand(b"bound", 1, bound, 1, 0.2)
    assert placed(scheduler, 0.2) == []
    scheduler.demand(b"stream", 1, None, 0, 0.2)
    scheduler.add_node(b"other", {"CPU": 2 * UNIT}, {})
    assert placed(scheduler, 0.3) == [b"large"]
    assert scheduler.wake_at == 0.3
    assert placed(scheduler, 0.3) == [b"bound"]


def test_a_claim_that_waits_for_what_is_kept_does_not_speak_for_those_who_want_the_same_elsewhere():
    scheduler = machine(2)
    scheduler.demand(b"head", 1, spec(2), 1, 0.0, held={"CPU": 2 * UNIT})  # an actor: it gives nothing back
    assert lease_of(scheduler, 0.0)
    scheduler.add_node(b"other", {"CPU": 2 * UNIT}, {})
    scheduler.demand(b"stream", 1, spec(1, JOB_B), 9, 0.0)
    streaming = lease_of(scheduler, 0.0)
    for owner in (b"first", b"second"):
        scheduler.demand(owner, 1, spec(2), 1, 0.1)
    claim = scheduler.claims[b"first", 1]
    scheduler.reservations._begin(claim.key, {NODE: claim.spec.resources}, 0, 0.1, claim.need)
    revoked = {effect.lease_id for effect in scheduler.schedule(1.0) if isinstance(effect, Revoke)}
    assert revoked == {lease.lease_id for lease in streaming}
