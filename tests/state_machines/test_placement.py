"""Placement groups: where bundles go, atomic reservation; and a model of groups, leases and nodes that come and go."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miniray.messages.control import LeaseSpec
from miniray.messages.placement import PlacementGroupSpec
from miniray.state_machines.lease_record import Place, Refuse, Revoke
from miniray.state_machines.placement import (
    CREATED,
    INFEASIBLE,
    NO_RESOURCES,
    PENDING,
    REMOVED,
    RESCHEDULING,
    GroupNameTakenError,
    GroupSettled,
)
from miniray.state_machines.resources import UNIT, NodeResources, to_units
from miniray.state_machines.scheduler import UNKNOWN_FOR, Scheduler

A, B, C = b"a", b"b", b"c"
JOB = b"job1"


def machine(**nodes):
    scheduler = Scheduler()
    for name, resources in nodes.items():
        labels = resources.pop("labels", {})
        scheduler.add_node(name.encode(), to_units(resources), labels)
    return scheduler


def group_spec(*bundles, number=1, strategy="PACK", name="", **more):
    return PlacementGroupSpec(
        b"group%d" % number, JOB, name, "ns", strategy, [to_units(bundle) for bundle in bundles], **more
    )


def create(scheduler, *bundles, now=0.0, **more):
    group, _ = scheduler.groups.create(group_spec(*bundles, **more), now)
    scheduler.schedule_groups(now)
    return group


def nodes_of(group):
    return [bundle.node.node_id if bundle.node else None for bundle in group.bundles]


def lease_in(scheduler, group, index=-1, owner=b"owner", class_id=1, now=0.0, **resources):
    spec = LeaseSpec(to_units(resources), JOB, placement_group_id=group.group_id, bundle_index=index)
    scheduler.demand(owner, class_id, spec, 1, now)
    return [effect for effect in scheduler.schedule(now) if isinstance(effect, (Place, Refuse))]


def test_pack_uses_as_few_nodes_as_it_can():
    scheduler = machine(a={"CPU": 2}, b={"CPU": 4})
    assert set(nodes_of(create(scheduler, {"CPU": 2}, {"CPU": 2}))) == {B}


def test_pack_spans_nodes_when_none_has_room_for_all():
    scheduler = machine(a={"CPU": 2}, b={"CPU": 2})
    assert sorted(nodes_of(create(scheduler, {"CPU": 2}, {"CPU": 1}, {"CPU": 1}))) in ([A, A, B], [A, B, B])
    assert create(scheduler, {"CPU": 1}, number=2).state == PENDING


def test_spread_uses_a_node_for_each_bundle_and_doubles_up_when_they_run_out():
    scheduler = machine(a={"CPU": 2}, b={"CPU": 2})
    assert sorted(nodes_of(create(scheduler, {"CPU": 1}, {"CPU": 1}, {"CPU": 1}, strategy="SPREAD"))) in (
        [A, A, B],
        [A, B, B],
    )


def test_strict_pack_waits_for_one_node_with_room_for_all():
    scheduler = machine(a={"CPU": 2}, b={"CPU": 2})
    group = create(scheduler, {"CPU": 2}, {"CPU": 1}, strategy="STRICT_PACK")
    assert (group.state, group.progress) == (PENDING, INFEASIBLE)
    scheduler.add_node(C, to_units({"CPU": 3}), {})
    scheduler.schedule_groups(1.0)
    assert nodes_of(group) == [C, C]


def test_strict_pack_tries_its_soft_target_first():
    scheduler = machine(a={"CPU": 8}, b={"CPU": 2})
    assert nodes_of(create(scheduler, {"CPU": 1}, strategy="STRICT_PACK", soft_target=B)) == [B]
    assert nodes_of(create(scheduler, {"CPU": 2}, number=2, strategy="STRICT_PACK", soft_target=B)) == [A]


def test_strict_spread_finds_the_one_assignment_that_there_is():
    scheduler = machine(a={"CPU": 4, "x": 1}, b={"CPU": 1}, c={"CPU": 2})
    group = create(scheduler, {"CPU": 1}, {"CPU": 2}, {"CPU": 2}, strategy="STRICT_SPREAD")
    assert nodes_of(group)[0] == B
    assert sorted(nodes_of(group)) == [A, B, C]


def test_strict_spread_with_more_bundles_than_nodes_is_infeasible():
    scheduler = machine(a={"CPU": 4})
    assert create(scheduler, {"CPU": 1}, {"CPU": 1}, strategy="STRICT_SPREAD").progress == INFEASIBLE


def test_labels_of_bundles_select_nodes():
    scheduler = machine(a={"CPU": 2, "labels": {"zone": "x"}}, b={"CPU": 2, "labels": {"zone": "y"}})
    group = create(scheduler, {"CPU": 1}, {"CPU": 1}, label_selectors=[{"zone": "!x"}, {"zone": "in(x,z)"}])
    assert nodes_of(group) == [B, A]
    assert create(scheduler, {"CPU": 1}, number=2, label_selectors=[{"zone": "z"}]).progress == INFEASIBLE


def test_a_topology_keeps_all_bundles_on_nodes_with_one_value():
    scheduler = machine(
        a={"CPU": 2, "labels": {"rack": "1"}},
        b={"CPU": 1, "labels": {"rack": "2"}},
        c={"CPU": 1, "labels": {"rack": "2"}},
    )
    group = create(scheduler, {"CPU": 1}, {"CPU": 1}, strategy="STRICT_SPREAD", topology="rack")
    assert sorted(nodes_of(group)) == [B, C]


def test_two_groups_that_each_fit_alone_never_hold_half_of_each_other():
    scheduler = machine(a={"CPU": 1}, b={"CPU": 1})
    first = create(scheduler, {"CPU": 1}, {"CPU": 1})
    second = create(scheduler, {"CPU": 1}, {"CPU": 1}, number=2)
    assert (first.state, second.state, second.progress) == (CREATED, PENDING, NO_RESOURCES)
    assert nodes_of(second) == [None, None]
    scheduler.remove_group(first.group_id)
    scheduler.schedule_groups(1.0)
    assert second.state == CREATED


def test_those_who_wait_are_told_of_the_reservation_or_of_the_removal():
    scheduler = machine(a={"CPU": 1})
    first = create(scheduler, {"CPU": 1})
    assert scheduler.groups.wait(first.group_id, "now") == [GroupSettled(["now"], True)]
    second = create(scheduler, {"CPU": 1}, number=2)
    assert scheduler.groups.wait(second.group_id, "later") == []
    _, _, effects = scheduler.remove_group(second.group_id)
    assert GroupSettled(["later"], False) in effects
    assert scheduler.groups.wait(second.group_id, "after") == [GroupSettled(["after"], False)]
    assert scheduler.groups.wait(b"unknown", "token") == [GroupSettled(["token"], False)]


def test_a_name_is_taken_until_the_removal():
    scheduler = machine(a={"CPU": 4})
    group = create(scheduler, {"CPU": 1}, name="n")
    with pytest.raises(GroupNameTakenError, match=r"because name 'n' already exists\."):
        create(scheduler, {"CPU": 1}, number=2, name="n")
    assert scheduler.groups.named("n", "ns") is group
    assert scheduler.groups.named("n", "other") is None
    scheduler.remove_group(group.group_id)
    assert create(scheduler, {"CPU": 1}, number=3, name="n").state == CREATED


def test_leases_of_a_group_take_from_its_bundles():
    scheduler = machine(a={"CPU": 4})
    group = create(scheduler, {"CPU": 1}, {"CPU": 2})
    assert scheduler.nodes[A].resources.available["CPU"] == UNIT
    (placed,) = lease_in(scheduler, group, 1, CPU=1)
    assert placed.lease.pool is group.bundles[1].pool
    assert scheduler.nodes[A].resources.available["CPU"] == UNIT
    assert group.bundles[1].pool.resources.available["CPU"] == UNIT


def test_a_claim_on_a_group_that_waits_is_served_when_the_group_is_reserved():
    scheduler = machine(a={"CPU": 1})
    group = create(scheduler, {"CPU": 2})
    assert lease_in(scheduler, group, CPU=1) == []
    scheduler.add_node(B, to_units({"CPU": 2}), {})
    scheduler.schedule(1.0)
    scheduler.schedule_groups(1.0)
    assert [effect.lease.node_id for effect in scheduler.schedule(1.0) if isinstance(effect, Place)] == [B]


def test_a_lease_without_an_index_goes_where_there_is_room():
    scheduler = machine(a={"CPU": 4})
    group = create(scheduler, {"CPU": 1}, {"CPU": 1})
    pools = [lease_in(scheduler, group, class_id=number, CPU=1)[0].lease.pool for number in (1, 2)]
    assert pools == group.pools()
    assert lease_in(scheduler, group, class_id=3, CPU=1) == []


def test_devices_of_a_bundle_are_its_own():
    scheduler = machine(a={"CPU": 4, "GPU": 4})
    create(scheduler, {"GPU": 1})
    second = create(scheduler, {"GPU": 2}, number=2)
    (placed,) = lease_in(scheduler, second, GPU=2)
    assert placed.lease.allocation.device_ids() == {"GPU": ["1", "2"]}


def test_a_claim_on_a_group_that_is_removed_is_refused():
    scheduler = machine(a={"CPU": 1})
    group = create(scheduler, {"CPU": 2})
    assert lease_in(scheduler, group, CPU=1) == []
    scheduler.remove_group(group.group_id)
    (refusal,) = scheduler.schedule(1.0)
    assert (refusal.error, refusal.claim.count) == ("TaskPlacementGroupRemoved", 0)


def test_a_claim_may_be_quicker_than_the_news_of_its_group():
    scheduler = machine(a={"CPU": 1})
    spec = LeaseSpec(to_units({"CPU": 1}), JOB, placement_group_id=b"group1")
    scheduler.demand(b"owner", 1, spec, 1, 0.0)
    scheduler.demand(b"owner", 2, LeaseSpec(to_units({"CPU": 1}), JOB, placement_group_id=b"unknown"), 1, 0.0)
    assert scheduler.schedule(0.0) == []
    create(scheduler, {"CPU": 1}, now=0.1)
    assert [effect.lease.claim.class_id for effect in scheduler.schedule(0.1)] == [1]
    assert scheduler.wake_at <= UNKNOWN_FOR
    assert [type(effect) for effect in scheduler.schedule(UNKNOWN_FOR)] == [Refuse]


def test_a_removal_gives_everything_back_and_names_the_workers_to_kill():
    scheduler = machine(a={"CPU": 2})
    group = create(scheduler, {"CPU": 2})
    (running,) = lease_in(scheduler, group, CPU=1)
    scheduler.granted(running.lease.lease_id, b"worker")
    (starting,) = lease_in(scheduler, group, class_id=2, CPU=1)
    lost, effects, _ = scheduler.remove_group(group.group_id)
    assert lost == [running.lease]
    assert [effect.lease_id for effect in effects] == [starting.lease.lease_id]
    assert scheduler.nodes[A].resources.available == scheduler.nodes[A].resources.total
    assert scheduler.remove_group(group.group_id) == ([], [], [])


def test_bundles_of_a_dead_node_are_reserved_elsewhere_and_the_others_stay():
    scheduler = machine(a={"CPU": 1}, b={"CPU": 1})
    group = create(scheduler, {"CPU": 1}, {"CPU": 1}, strategy="STRICT_SPREAD")
    index = nodes_of(group).index(B)
    scheduler.remove_node(B)
    assert group.state == RESCHEDULING
    scheduler.add_node(C, to_units({"CPU": 1}), {})
    scheduler.schedule_groups(1.0)
    assert group.state == CREATED
    assert nodes_of(group)[index] == C
    assert nodes_of(group)[1 - index] == A


def test_leases_are_revoked_for_a_group_that_waits():
    scheduler = machine(a={"CPU": 2})
    scheduler.demand(b"owner", 1, LeaseSpec({"CPU": UNIT}, JOB), 5, 0.0)
    leases = [effect.lease for effect in scheduler.schedule(0.0) if isinstance(effect, Place)]
    for lease in leases:
        scheduler.granted(lease.lease_id, b"w%d" % lease.lease_id)
    group = create(scheduler, {"CPU": 2})
    revoked = [effect.lease_id for effect in scheduler.schedule(0.1) if isinstance(effect, Revoke)]
    assert sorted(revoked) == [lease.lease_id for lease in leases]
    # The first one comes back alone: after a moment it is kept for the group.
    scheduler.schedule(0.3)
    scheduler.end(leases[0].lease_id)
    scheduler.schedule_groups(0.4)
    assert not any(isinstance(effect, Place) for effect in scheduler.schedule(0.4))
    scheduler.end(leases[1].lease_id)
    scheduler.schedule_groups(0.5)
    assert group.state == CREATED


def test_groups_that_wait_are_tried_again_when_something_came_back_and_not_before():
    scheduler = machine(a={"CPU": 2})
    first = create(scheduler, {"CPU": 2}, number=1)
    second = create(scheduler, {"CPU": 2}, number=2)
    third = create(scheduler, {"CPU": 2}, number=3)
    scheduler.schedule_groups(0.1)
    assert (second.attempts, third.attempts) == (1, 1)
    scheduler.remove_group(first.group_id)
    scheduler.schedule_groups(0.2)
    assert (second.state, third.state, third.attempts) == (CREATED, PENDING, 2)
    scheduler.remove_group(second.group_id)
    scheduler.demand(b"owner", 1, LeaseSpec({"CPU": UNIT}, JOB), 1, 0.2)
    (lease,) = [effect.lease for effect in scheduler.schedule(0.2) if isinstance(effect, Place)]
    scheduler.schedule_groups(0.3)
    assert third.state == PENDING
    scheduler.end(lease.lease_id)
    scheduler.schedule_groups(0.4)
    assert third.state == CREATED


def test_groups_end_with_their_job_or_with_the_detached_actor_that_made_them():
    scheduler = machine(a={"CPU": 9})
    create(scheduler, {"CPU": 1}, number=1)
    create(scheduler, {"CPU": 1}, number=2, detached=True)
    create(scheduler, {"CPU": 1}, number=3, creator=b"actor")
    assert scheduler.groups.ending_with(job_id=JOB) == [b"group1"]
    assert scheduler.groups.ending_with(actor_id=b"actor") == [b"group3"]


class Groups(RuleBasedStateMachine):
    """Groups and leases come and go on nodes that join and die: nothing is over-committed, half reserved or lost."""

    @initialize(cpus=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def start(self, cpus):
        self.scheduler = Scheduler()
        self.now = 0.0
        self.numbers = 0
        for quantity in cpus:
            self.a_node_joins(quantity)

    @rule(cpus=st.integers(1, 4))
    def a_node_joins(self, cpus):
        if len(self.scheduler.nodes) < 4:
            self.numbers += 1
            self.scheduler.add_node(b"node%d" % self.numbers, {"CPU": cpus * UNIT, "GPU": UNIT}, {})

    @precondition(lambda self: len(self.scheduler.nodes) > 1)
    @rule(choice=st.integers(0, 10))
    def a_node_dies(self, choice):
        nodes = list(self.scheduler.nodes)
        self.scheduler.remove_node(nodes[choice % len(nodes)], self.now)

    @rule(
        strategy=st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
        sizes=st.lists(st.sampled_from([{"CPU": 1}, {"CPU": 2}, {"CPU": 0.5, "GPU": 0.5}]), min_size=1, max_size=3),
    )
    def a_group_is_made(self, strategy, sizes):
        self.numbers += 1
        self.scheduler.groups.create(group_spec(*sizes, number=self.numbers, strategy=strategy), self.now)

    def living(self):
        return [group for group in self.scheduler.groups.groups.values() if group.state != REMOVED]

    @precondition(lambda self: self.living())
    @rule(choice=st.integers(0, 10))
    def a_group_is_removed(self, choice):
        groups = self.living()
        lost, _, _ = self.scheduler.remove_group(groups[choice % len(groups)].group_id)
        assert not any(lease.lease_id in self.scheduler.leases for lease in lost)

    @rule(choice=st.integers(0, 10), count=st.integers(0, 3), cpus=st.sampled_from([UNIT // 2, UNIT]))
    def somebody_wants(self, choice, count, cpus):
        groups = [b"", *(group.group_id for group in self.living())]
        spec = LeaseSpec({"CPU": cpus}, JOB, placement_group_id=groups[choice % len(groups)])
        self.numbers += 1
        self.scheduler.demand(b"owner", self.numbers, spec, count, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.2, 2.0]))
    def schedule(self, seconds):
        self.now += seconds
        for _ in range(20):
            self.scheduler.schedule_groups(self.now)
            for effect in self.scheduler.schedule(self.now):
                if isinstance(effect, Place):
                    self.scheduler.granted(effect.lease.lease_id, b"w")
            if self.scheduler.wake_at is None or self.scheduler.wake_at > self.now:
                break
        else:
            raise AssertionError("it wants to be called again and again")
        if not self.scheduler.reservations.by_pool:
            self.nobody_waits_beside_room()

    def nobody_waits_beside_room(self):
        groups = self.scheduler.groups
        free = {node_id: node.resources.available for node_id, node in self.scheduler.nodes.items()}
        assert not [group for group in groups.waiting.values() if groups.plan(group, free)]
        waiting = [claim for claim in self.scheduler.claims.values() if claim.count]
        assert not [claim for claim in waiting if claim.need.choose(claim.owner_node)]

    @precondition(lambda self: self.scheduler.leases)
    @rule(choice=st.integers(0, 10))
    def a_lease_ends(self, choice):
        leases = list(self.scheduler.leases)
        self.scheduler.end(leases[choice % len(leases)])

    @precondition(lambda self: self.scheduler.leases)
    @rule(choice=st.integers(0, 10), blocked=st.booleans())
    def a_worker_blocks(self, choice, blocked):
        leases = list(self.scheduler.leases.values())
        self.scheduler.set_blocked(leases[choice % len(leases)], blocked)

    @invariant()
    def a_group_holds_all_or_lost_some_or_holds_nothing(self):
        for group in self.scheduler.groups.groups.values():
            held = [bundle.pool is not None for bundle in group.bundles]
            if group.state == CREATED:
                assert all(held)
            elif group.state in (PENDING, REMOVED):
                assert not any(held)
            else:
                assert not all(held)
            if group.state == CREATED and group.spec.strategy == "STRICT_PACK":
                assert len(set(nodes_of(group))) == 1
            if group.spec.strategy == "STRICT_SPREAD":
                places = [node for node in nodes_of(group) if node]
                assert len(set(places)) == len(places)

    @invariant()
    def what_is_taken_is_what_is_held(self):
        scheduler = self.scheduler
        taken = {}
        for group in scheduler.groups.groups.values():
            for bundle in group.bundles:
                if bundle.taken is not None:
                    taken.setdefault(bundle.node.key, []).append((bundle.taken, False))
        for lease in scheduler.leases.values():
            taken.setdefault(lease.pool.key, []).append((lease.allocation, lease.blocked))
        pools = [
            *scheduler.nodes.values(),
            *(pool for group in scheduler.groups.groups.values() for pool in group.pools()),
        ]
        for pool in pools:
            for name, total in pool.resources.total.items():
                held = [
                    allocation.resources.get(name, 0)
                    for allocation, blocked in taken.get(pool.key, [])
                    if not (blocked and name == "CPU")
                ]
                assert pool.resources.available[name] == total - sum(held)
                if name != "CPU":
                    assert pool.resources.available[name] >= 0
                assert all(quantity <= total for quantity in held)

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        for group in self.living():
            scheduler.remove_group(group.group_id)
        for _ in range(1000):
            for lease_id in list(scheduler.leases):
                scheduler.granted(lease_id, b"w")
                scheduler.end(lease_id)
            scheduler.schedule(self.now)
            if not scheduler.leases:
                if scheduler.wake_at is None:
                    break
                self.now = max(self.now, scheduler.wake_at)  # what waits is served when it asks to be called again
        assert not any(claim.count for claim in scheduler.claims.values())
        for node in scheduler.nodes.values():
            assert node.resources.available == node.resources.total


TestGroups = Groups.TestCase
TestGroups.settings = settings(max_examples=200, stateful_step_count=40)


class ForgetfulResources(NodeResources):
    """Takes nothing from what is available: the planted fault."""

    def take(self, demand):
        before = dict(self.available)
        allocation = super().take(demand)
        self.available.update(before)
        return allocation


def test_the_model_finds_a_planted_over_commit(monkeypatch):
    monkeypatch.setattr("miniray.state_machines.scheduler.NodeResources", ForgetfulResources)
    model = Groups()
    model.start([1])
    model.somebody_wants(0, 3, UNIT)
    model.schedule(0.0)
    with pytest.raises(AssertionError):
        model.what_is_taken_is_what_is_held()
