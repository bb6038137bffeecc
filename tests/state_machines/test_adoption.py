"""Leases, workers and placement groups of an earlier head: they hold what they held, and give it back once."""

import msgspec

from miniray.messages.control import LeaseSpec
from miniray.messages.placement import PlacementGroupSpec
from miniray.state_machines import placement
from miniray.state_machines.placement import CREATED, PENDING, REMOVED, RESCHEDULING, PlacementGroups
from miniray.state_machines.resources import NodeResources, to_units
from miniray.state_machines.scheduler import Place, Scheduler
from miniray.state_machines.worker_pool import IDLE, LEASED, Assign, WorkerPool

NODE, JOB = b"node", b"job1"
KIND = (NODE, "")


def scheduler(**resources):
    machine = Scheduler()
    machine.add_node(NODE, to_units(resources or {"CPU": 2}), {})
    return machine


def spec(**resources):
    return LeaseSpec(to_units(resources or {"CPU": 1}), JOB)


def free(machine):
    return machine.nodes[NODE].resources.available


def test_an_adopted_lease_holds_its_resources_until_it_is_given_back():
    machine = scheduler()
    lease = machine.adopt(7, b"owner", 1, spec(), NODE, b"w", 0.0)
    assert free(machine) == to_units({"CPU": 1})
    assert machine.adopt(7, b"owner", 1, spec(), NODE, b"w", 0.0) is None  # once
    machine.set_blocked(lease, True)
    assert free(machine) == to_units({"CPU": 2})
    machine.end(7)
    assert free(machine) == to_units({"CPU": 2})


def test_new_leases_have_numbers_of_their_own_and_wait_for_room():
    machine = scheduler(CPU=1)
    machine.number_leases_from(2 << 32)
    machine.adopt(7, b"owner", 1, spec(), NODE, b"w", 0.0)
    machine.demand(b"owner", 1, None, 1, 0.0)  # the claim is known from the adopted lease
    assert machine.schedule(0.0) == []
    machine.end(7)
    (place,) = [effect for effect in machine.schedule(1.0) if isinstance(effect, Place)]
    assert place.lease.lease_id == 2 << 32


def test_what_an_earlier_head_gave_is_taken_though_it_does_not_fit():
    machine = scheduler(CPU=1)
    machine.adopt(1, b"a", 1, spec(), NODE, b"w1", 0.0)
    machine.adopt(2, b"b", 1, spec(), NODE, b"w2", 0.0)  # the first one was blocked when this was given
    assert free(machine)["CPU"] < 0
    machine.end(1)
    machine.end(2)
    assert free(machine) == to_units({"CPU": 1})


def test_a_lease_on_a_node_that_is_gone_is_not_adopted():
    assert scheduler().adopt(1, b"a", 1, spec(), b"gone", b"w", 0.0) is None


def test_devices_are_the_same_as_before():
    resources = NodeResources(to_units({"GPU": 3}))
    adopted = resources.adopt(to_units({"GPU": 1}), {"GPU": ["1"]})
    assert adopted.device_ids() == {"GPU": ["1"]}
    assert resources.take(to_units({"GPU": 2})).device_ids() == {"GPU": ["0", "2"]}
    resources.give_back(adopted)
    assert resources.take(to_units({"GPU": 1})).device_ids() == {"GPU": ["1"]}


def test_adopted_workers_are_leased_or_idle():
    pool = WorkerPool(4)
    pool.add_node(NODE, 4)
    pool.adopt(b"busy", KIND, JOB, 7, 0.0)
    pool.adopt(b"idle", KIND, b"", 0, 0.0)
    assert (pool.workers[b"busy"].state, pool.workers[b"idle"].state) == (LEASED, IDLE)
    pool.request(8, KIND, JOB)
    assert pool.schedule(0.0) == [Assign(8, b"idle")]
    pool.returned(b"busy", False, 1.0)
    pool.request(9, KIND, JOB)
    assert pool.schedule(1.0) == [Assign(9, b"busy")]


def group_spec(*bundles, **more):
    return PlacementGroupSpec(b"g" * 18, JOB, "name", "space", "PACK", [to_units(bundle) for bundle in bundles], **more)


def reserved(*bundles):
    machine = scheduler(CPU=4, GPU=2)
    machine.groups.create(group_spec(*bundles), 0.0)
    machine.schedule_groups(0.0)
    return machine, machine.groups.groups[b"g" * 18]


def test_a_placement_group_keeps_its_bundles_and_devices():
    machine, group = reserved({"CPU": 1, "GPU": 1}, {"CPU": 2})
    other = scheduler(CPU=4, GPU=2)
    other.groups.restore(group.spec, placement.record_of(group), 1.0)
    again = other.groups.named("name", "space")
    assert (again.state, free(other)) == (CREATED, free(machine))
    assert again.bundles[0].taken.devices == group.bundles[0].taken.devices
    inside = LeaseSpec(to_units({"CPU": 1}), JOB, placement_group_id=group.group_id, bundle_index=1)
    lease = other.adopt(7, b"owner", 1, inside, NODE, b"w", 1.0)
    assert lease.pool is again.bundles[1].pool
    other.remove_group(group.group_id)
    assert free(other) == to_units({"CPU": 4, "GPU": 2})


def test_a_group_whose_node_is_gone_is_reserved_again_and_a_pending_one_waits():
    _, group = reserved({"CPU": 1})
    other = Scheduler()
    other.groups.restore(group.spec, placement.record_of(group), 1.0)
    assert other.groups.named("name", "space").state == RESCHEDULING
    _, group = reserved({"CPU": 9})
    other = scheduler(CPU=9)
    other.groups.restore(group.spec, placement.record_of(group), 1.0)
    assert other.groups.named("name", "space").state == PENDING
    other.schedule_groups(1.0)
    assert other.groups.named("name", "space").state == CREATED


def test_a_group_that_was_removed_stays_removed():
    machine, group = reserved({"CPU": 1})
    machine.remove_group(group.group_id)
    other = scheduler(CPU=4, GPU=2)
    other.groups.restore(group.spec, placement.record_of(group), 1.0)
    assert (other.groups.groups[group.group_id].state, other.groups.named("name", "space")) == (REMOVED, None)


def test_a_name_that_was_used_again_after_a_removal_belongs_to_the_living_group():
    machine, removed = reserved({"CPU": 1})
    machine.remove_group(removed.group_id)
    for living_id in (b"a" * 18, b"z" * 18):
        spec = msgspec.structs.replace(removed.spec, group_id=living_id)
        living, _ = PlacementGroups(machine.nodes).create(spec, 1.0)
        other = scheduler(CPU=4, GPU=2)
        for group in sorted((removed, living), key=lambda group: group.group_id):
            other.groups.restore(group.spec, placement.record_of(group), 2.0)
        assert other.groups.named("name", "space").group_id == living_id
