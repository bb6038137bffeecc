"""The scheduler: events in, effects out; and a model of many owners who want, get, block and leave."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from miniray.messages.control import LeaseSpec
from miniray.state_machines.lease_record import Infeasible, Place, Revoke, Withdraw
from miniray.state_machines.resources import UNIT, to_units
from miniray.state_machines.revocation import QUANTUM
from miniray.state_machines.scheduler import INFEASIBLE_AGAIN, Scheduler
from miniray.state_machines.slow_admission import ZERO_CAP, ZERO_INTERVAL

HEAD, OTHER = b"head", b"other"
JOB_A, JOB_B = b"jobA", b"jobB"


def scheduler(**nodes):
    machine = Scheduler()
    for name, cpus in (nodes or {"head": 2}).items():
        machine.add_node(name.encode(), to_units({"CPU": cpus}), {})
    return machine


def spec(cpus=1.0, job=JOB_A, **resources):
    return LeaseSpec(to_units({"CPU": cpus, **resources} if cpus else resources), job)


def placed(effects):
    return [effect.lease for effect in effects if isinstance(effect, Place)]


def revoked(effects):
    return [effect.lease_id for effect in effects if isinstance(effect, Revoke)]


def grant_all(machine, effects):
    leases = placed(effects)
    for lease in leases:
        machine.granted(lease.lease_id, b"worker-%d" % lease.lease_id)
    return leases


def run(machine, owner, count, now=0.0, *, class_id=1, lease_spec=None, depth=0):
    machine.demand(owner, class_id, lease_spec or spec(), count, now, depth=depth)
    return grant_all(machine, machine.schedule(now))


def test_leases_are_placed_until_the_node_is_full():
    machine = scheduler(head=2)
    assert len(run(machine, b"driver", 5)) == 2
    assert machine.claims[b"driver", 1].count == 3


def test_a_returned_lease_makes_room_for_the_next():
    machine = scheduler(head=1)
    (lease,) = run(machine, b"driver", 2)
    machine.end(lease.lease_id)
    assert len(placed(machine.schedule(1.0))) == 1


def test_a_demand_is_absolute_and_a_placed_lease_counts_towards_it():
    machine = scheduler(head=4)
    machine.demand(b"driver", 1, spec(), 2, 0.0)
    assert len(placed(machine.schedule(0.0))) == 2
    assert machine.demand(b"driver", 1, None, 3, 0.0) == []
    assert len(placed(machine.schedule(0.0))) == 1


def test_a_demand_that_is_withdrawn_while_a_worker_starts_frees_the_resources():
    machine = scheduler(head=1)
    machine.demand(b"driver", 1, spec(), 1, 0.0)
    (lease,) = placed(machine.schedule(0.0))
    assert machine.demand(b"driver", 1, None, 0, 0.0) == [Withdraw(lease.lease_id)]
    assert machine.granted(lease.lease_id, b"late") is None
    assert machine.nodes[HEAD].resources.available == machine.nodes[HEAD].resources.total


def test_a_blocked_lease_lets_a_child_run():
    machine = scheduler(head=1)
    (parent,) = run(machine, b"driver", 1)
    assert run(machine, b"parent", 1, depth=1) == []
    machine.set_blocked(parent, True)
    assert len(placed(machine.schedule(0.0))) == 1
    machine.set_blocked(parent, False)
    assert machine.nodes[HEAD].resources.available["CPU"] == -UNIT


def test_a_demand_that_came_back_sees_what_was_freed_meanwhile():
    machine = scheduler(head=2)
    (lease,) = run(machine, b"first", 1, lease_spec=spec(2))
    assert run(machine, b"second", 1) == []
    machine.demand(b"second", 1, None, 0, 0.0)
    machine.end(lease.lease_id)
    assert len(run(machine, b"third", 1, lease_spec=spec(0.5))) == 1
    assert len(run(machine, b"second", 1)) == 1


def test_what_a_claim_wanted_before_leaves_nothing_in_the_queue_of_its_need():
    machine = scheduler(head=2)
    run(machine, b"waits", 3)  # one of them is never served
    need = machine.claims[b"waits", 1].need
    for _ in range(200):
        (lease, *_) = machine.leases.values()
        machine.set_blocked(lease, True)
        machine.set_blocked(lease, False)
    assert len(need.queues[JOB_A]) < 30
    machine.demand(b"waits", 1, None, 0, 1.0)
    assert not need.queues


def test_deeper_demand_of_a_job_goes_first():
    machine = scheduler(head=1)
    (lease,) = run(machine, b"driver", 5)
    machine.demand(b"child", 1, spec(), 1, 0.0, depth=1)
    machine.end(lease.lease_id)
    assert [lease.claim.owner for lease in placed(machine.schedule(0.0))] == [b"child"]


def test_deeper_demand_takes_leases_of_shallower_claims_back():
    machine = scheduler(head=1)
    (lease,) = run(machine, b"driver", 5)
    machine.demand(b"child", 1, spec(), 1, 0.0, depth=1)
    assert revoked(machine.schedule(0.0)) == [lease.lease_id]


def test_two_drivers_share_the_cpus_evenly():
    machine = scheduler(head=4)
    held = run(machine, b"first", 1000)
    machine.demand(b"second", 1, spec(job=JOB_B), 1000, 1.0)
    asked_back = revoked(machine.schedule(1.0))
    assert len(asked_back) == 2
    for lease in held:
        if lease.lease_id in asked_back:
            machine.end(lease.lease_id)
    assert [lease.claim.owner for lease in placed(machine.schedule(1.0))] == [b"second", b"second"]
    assert revoked(machine.schedule(1.0)) == []


def test_one_cpu_serves_two_drivers_in_turns():
    machine = scheduler(head=1)
    (lease,) = run(machine, b"first", 1000)
    machine.demand(b"second", 1, spec(job=JOB_B), 1000, 0.0)
    assert revoked(machine.schedule(QUANTUM / 2)) == []
    assert machine.wake_at == QUANTUM
    assert revoked(machine.schedule(QUANTUM)) == [lease.lease_id]
    machine.end(lease.lease_id)
    assert [lease.claim.owner for lease in placed(machine.schedule(QUANTUM))] == [b"second"]


def test_no_more_leases_are_revoked_than_serve_those_who_wait():
    machine = scheduler(head=8)
    run(machine, b"first", 1000)
    machine.demand(b"second", 1, spec(job=JOB_B), 1, 1.0)
    assert len(revoked(machine.schedule(1.0))) == 1
    assert revoked(machine.schedule(1.0)) == []


def test_only_leases_that_hold_what_is_wanted_are_revoked():
    machine = Scheduler()
    machine.add_node(HEAD, to_units({"CPU": 4, "GPU": 1}), {})
    (with_gpu,) = run(machine, b"first", 2, class_id=1, lease_spec=spec(0, GPU=1))
    assert len(run(machine, b"first", 9, class_id=2)) == 4
    assert len(run(machine, b"first", 9, class_id=3, lease_spec=spec(0))) == 9
    machine.demand(b"second", 1, spec(0, JOB_B, GPU=1), 1, 0.1)
    assert revoked(machine.schedule(0.1)) == [with_gpu.lease_id]


def test_a_claim_that_does_not_fit_stops_nobody():
    machine = scheduler(head=2)
    run(machine, b"first", 1)
    machine.demand(b"large", 1, spec(2.0, JOB_B), 1, 0.0)
    machine.demand(b"small", 1, spec(1.0, b"jobC"), 1, 0.0)
    assert [lease.claim.owner for lease in placed(machine.schedule(0.0))] == [b"small"]


def test_infeasible_demand_waits_and_is_named_once_in_a_while():
    machine = scheduler(head=2)
    machine.demand(b"driver", 1, spec(100.0, nope=1), 1, 0.0)
    assert machine.schedule(0.0) == []
    at = machine.wake_at
    (effect,) = machine.schedule(at)
    assert isinstance(effect, Infeasible)
    assert effect.lacking == {"CPU": 2.0, "nope": 0.0}
    assert machine.schedule(at + 1) == []
    assert machine.wake_at == at + INFEASIBLE_AGAIN
    machine.add_node(OTHER, to_units({"CPU": 100, "nope": 1}), {})
    assert [lease.node_id for lease in placed(machine.schedule(at + 2))] == [OTHER]


def test_an_actor_is_placed_by_one_demand_and_holds_another():
    machine = scheduler(head=2)
    for number in range(5):
        machine.demand(b"head", number, spec(1.0), 1, 0.0, held={})
    machine.demand(b"head", 5, spec(1.0), 1, 0.0, held=to_units({"CPU": 1}))
    leases = grant_all(machine, machine.schedule(0.0))
    assert len(leases) == 6
    assert machine.nodes[b"head"].resources.available["CPU"] == 10000
    for lease in leases:
        machine.end(lease.lease_id)
    assert machine.nodes[b"head"].resources.available["CPU"] == 20000
    assert not machine.claims


def test_an_actor_that_holds_nothing_is_placed_beside_busy_cpus_but_not_where_it_could_never_be():
    machine = scheduler(head=1)
    run(machine, b"driver", 1)
    machine.demand(b"head", 1, spec(1.0), 1, 0.0, held={})
    machine.demand(b"head", 2, spec(2.0), 1, 0.0, held={})
    (lease,) = placed(machine.schedule(0.0))
    assert lease.claim.class_id == 1


def test_actors_keep_their_lease_whoever_waits():
    machine = scheduler(head=1)
    machine.demand(b"head", 1, spec(1.0), 1, 0.0, held=to_units({"CPU": 1}))
    (lease,) = grant_all(machine, machine.schedule(0.0))
    machine.demand(b"driver", 1, spec(), 1, 0.0)
    assert machine.schedule(100.0) == []
    machine.set_blocked(lease, True)
    assert machine.nodes[b"head"].resources.available["CPU"] == 0


def test_a_demand_for_an_actor_that_is_withdrawn_leaves_nothing():
    machine = scheduler(head=1)
    machine.demand(b"head", 1, spec(1.0), 1, 0.0, held=to_units({"CPU": 1}))
    machine.schedule(0.0)
    assert len(machine.withdraw(b"head", 1)) == 1
    assert machine.withdraw(b"head", 1) == []
    assert not machine.claims
    assert machine.nodes[b"head"].resources.available["CPU"] == 10000


def test_nodes_are_packed_to_one_half_and_then_evened_out():
    machine = scheduler(head=4, other=4)
    assert [lease.node_id for lease in run(machine, b"driver", 6)] == [HEAD, HEAD, OTHER, OTHER, HEAD, OTHER]


def test_a_removed_node_takes_its_leases_with_it():
    machine = scheduler(head=1, other=1)
    leases = run(machine, b"driver", 2)
    assert [lease.lease_id for lease in machine.remove_node(OTHER)[0]] == [
        lease.lease_id for lease in leases if lease.node_id == OTHER
    ]
    assert len(machine.leases) == 1


def test_tasks_that_need_nothing_are_let_in_slowly_beyond_the_cap():
    machine = scheduler(head=1)
    assert len(run(machine, b"driver", 100, lease_spec=spec(0))) == ZERO_CAP + 1
    assert len(placed(machine.schedule(machine.wake_at))) == 1


def test_each_node_lets_in_tasks_that_need_nothing_at_its_own_pace():
    machine = scheduler(head=1, other=1)
    everywhere = LeaseSpec({}, JOB_A, strategy=msgspec.msgpack.encode("SPREAD"))
    assert len(run(machine, b"driver", 100, lease_spec=everywhere)) == 2 * (ZERO_CAP + 1)
    assert len(run(machine, b"driver", 100, lease_spec=everywhere, now=machine.wake_at)) == 2
    assert machine.wake_at == 2 * ZERO_INTERVAL


def test_an_owner_that_dies_leaves_no_lease_and_no_demand():
    machine = scheduler(head=2)
    held = run(machine, b"driver", 1)
    machine.demand(b"driver", 2, spec(), 1, 0.0)
    (waiting,) = placed(machine.schedule(0.0))
    lost, effects = machine.owner_gone(b"driver")
    assert lost == held
    assert effects == [Withdraw(waiting.lease_id)]
    assert not machine.claims
    assert not machine.leases


OWNERS = {b"a1": JOB_A, b"a2": JOB_A, b"b1": JOB_B}


class Owners(RuleBasedStateMachine):
    """Owners want, get, block, return and die in any order; nothing is over-committed, lost or left."""

    @initialize(cpus=st.integers(1, 4), others=st.integers(0, 1))
    def start(self, cpus, others):
        self.machine = Scheduler()
        self.machine.add_node(HEAD, {"CPU": cpus * UNIT, "x": UNIT}, {})
        for _ in range(others):
            self.machine.add_node(OTHER, {"CPU": 2 * UNIT}, {})
        self.now = 0.0
        self.wanted = {}

    @rule(
        owner=st.sampled_from(sorted(OWNERS)),
        class_id=st.integers(1, 2),
        count=st.integers(0, 5),
        depth=st.integers(0, 2),
    )
    def want(self, owner, class_id, count, depth):
        resources = {"CPU": UNIT} if class_id == 1 else {"CPU": UNIT // 2, "x": UNIT}
        self.machine.demand(owner, class_id, LeaseSpec(resources, OWNERS[owner]), count, self.now, depth=depth)
        self.wanted[owner, class_id] = count

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0]))
    def schedule(self, seconds):
        self.now += seconds
        for effect in self.machine.schedule(self.now):
            if isinstance(effect, Revoke):
                assert self.machine.leases[effect.lease_id].claim.owner == effect.owner

    @precondition(lambda self: any(not lease.worker_id for lease in self.machine.leases.values()))
    @rule()
    def a_worker_starts(self):
        lease = next(lease for lease in self.machine.leases.values() if not lease.worker_id)
        self.machine.granted(lease.lease_id, b"w")
        self.wanted[lease.claim.key] -= 1

    @precondition(lambda self: any(lease.worker_id for lease in self.machine.leases.values()))
    @rule(choice=st.integers(0, 10), blocked=st.booleans())
    def a_worker_blocks(self, choice, blocked):
        leases = [lease for lease in self.machine.leases.values() if lease.worker_id]
        self.machine.set_blocked(leases[choice % len(leases)], blocked)

    @precondition(lambda self: self.machine.leases)
    @rule(choice=st.integers(0, 10))
    def a_lease_ends(self, choice):
        lease = list(self.machine.leases.values())[choice % len(self.machine.leases)]
        if lease.worker_id:
            assert self.machine.end(lease.lease_id) is lease

    @rule(owner=st.sampled_from(sorted(OWNERS)))
    def an_owner_dies(self, owner):
        self.machine.owner_gone(owner)
        for key in [key for key in self.wanted if key[0] == owner]:
            del self.wanted[key]

    @invariant()
    def no_node_gives_more_than_it_has(self):
        for node_id, node in self.machine.nodes.items():
            used = dict.fromkeys(node.resources.total, 0)
            for lease in self.machine.leases.values():
                if lease.node_id == node_id:
                    for name, quantity in lease.allocation.resources.items():
                        if not (lease.blocked and name == "CPU"):
                            used[name] += quantity
            for name, total in node.resources.total.items():
                assert node.resources.available[name] == total - used[name]
                if name != "CPU":
                    assert used[name] <= total

    @invariant()
    def no_demand_is_lost_and_none_invented(self):
        for key, count in self.wanted.items():
            claim = self.machine.claims.get(key)
            assert (claim.count + claim.waiting if claim else 0) == count

    def teardown(self):
        if not hasattr(self, "machine"):
            return
        machine = self.machine
        # Everybody gives back what it has, for as long as somebody wants something: all demands get served.
        for _ in range(1000):
            for lease in list(machine.leases.values()):
                if not lease.worker_id:
                    machine.granted(lease.lease_id, b"w")
                machine.end(lease.lease_id)
            self.now += 1.0
            machine.schedule(self.now)
            if not machine.leases:
                break
        assert not any(claim.count for claim in machine.claims.values())
        for node in machine.nodes.values():
            assert node.resources.available == node.resources.total


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=80, stateful_step_count=30)
