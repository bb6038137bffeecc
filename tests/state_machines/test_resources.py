"""Resources of a node: exact, in devices, and never more than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniray.state_machines.resources import UNIT, NodeResources, from_units, to_units

GPU_DEMANDS = st.sampled_from([UNIT // 4, UNIT // 2, UNIT, 2 * UNIT])


def test_quantities_survive_the_way_to_units_and_back():
    assert from_units(to_units({"CPU": 2.5, "a": 0.0001})) == {"CPU": 2.5, "a": 0.0001}


def test_what_is_used_up_is_absent():
    node = NodeResources(to_units({"CPU": 1, "a": 1}))
    node.take(to_units({"CPU": 1}))
    assert from_units(node.available) == {"a": 1.0}


def test_what_does_not_fit_is_refused_and_changes_nothing():
    node = NodeResources(to_units({"CPU": 1}))
    with pytest.raises(ValueError, match="does not fit"):
        node.take(to_units({"CPU": 2}))
    assert node.available == node.total


def test_fractions_share_a_device_until_it_is_full():
    node = NodeResources(to_units({"GPU": 2}))
    taken = [node.take({"GPU": UNIT // 2}).device_ids() for _ in range(3)]
    assert taken == [{"GPU": ["0"]}, {"GPU": ["0"]}, {"GPU": ["1"]}]


def test_a_whole_device_is_not_made_of_two_halves():
    node = NodeResources(to_units({"GPU": 2}))
    first = node.take({"GPU": UNIT // 2})
    node.take({"GPU": UNIT})
    assert not node.fits({"GPU": UNIT})
    node.give_back(first)
    assert node.take({"GPU": UNIT}).device_ids() == {"GPU": ["0"]}


def test_a_node_says_what_it_could_never_offer():
    node = NodeResources(to_units({"CPU": 2}))
    assert node.missing(to_units({"CPU": 3, "GPU": 1})) == {"CPU": 2.0, "GPU": 0.0}


def test_a_blocked_holder_lends_its_cpus_and_nothing_else():
    node = NodeResources(to_units({"CPU": 1, "a": 1}))
    allocation = node.take(to_units({"CPU": 1, "a": 1}))
    node.release_cpu(allocation)
    assert from_units(node.available) == {"CPU": 1.0}
    node.take(to_units({"CPU": 1}))
    node.reclaim_cpu(allocation)
    assert node.available["CPU"] == -UNIT


@given(st.lists(st.tuples(GPU_DEMANDS, st.booleans()), max_size=40))
def test_devices_are_never_given_out_twice_and_all_come_back(steps):
    node = NodeResources({"GPU": 3 * UNIT})
    held = []
    for quantity, take in steps:
        if take and node.fits({"GPU": quantity}):
            held.append(node.take({"GPU": quantity}))
        elif held:
            node.give_back(held.pop(0))
        used = [0, 0, 0]
        for allocation in held:
            for number, units in allocation.devices["GPU"]:
                used[number] += units
        assert all(units <= UNIT for units in used)
        assert node.available["GPU"] == 3 * UNIT - sum(used)
    for allocation in held:
        node.give_back(allocation)
    assert node.available == node.total
