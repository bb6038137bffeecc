"""Several drivers on one cluster: how they attach, and what ends with them."""

# mypy: ignore-errors
from __future__ import annotations

from ..catalog import program
from ..observe import outcome, run_script, script_lines, until

AREA = "cluster"
SESSION = {
    "nodes": [{"num_cpus": 0, "resources": {"head": 1}}, {"num_cpus": 2, "resources": {"other": 1}}],
    "namespace": "shared",
    "log_to_driver": False,
}

ATTACH = """
    import sys
    import ENGINE as ray
    arguments = {"auto": ["auto"], "address": [sys.argv[2]], "plain": [], "variable": []}[sys.argv[1]]
    keywords = {"address": "auto"} if sys.argv[1] == "keyword" else {}
    context = ray.init(*arguments, logging_level="ERROR", **keywords)
    print(sorted(name for name in ray.cluster_resources() if name in ("head", "other")))
    head = next(row["NodeID"] for row in ray.nodes() if "head" in row["Resources"])
    print(ray.get_runtime_context().get_node_id() == head, context["node_id"] == head)
    print(context.address_info["gcs_address"] == sys.argv[2], "gcs_address" in context.address_info)
    print(ray.get(ray.remote(lambda: 7).remote()))
"""


def address_of(ray):
    return ray.get_runtime_context().gcs_address


@program("cluster/attach")
def drivers_attach_by_address_auto_or_plainly(ray):
    address = address_of(ray)
    answers = {how: script_lines(ray, ATTACH, how, address) for how in ("auto", "address", "plain")}
    answers["variable"] = script_lines(ray, ATTACH, "variable", address, env={"RAY_ADDRESS": address})
    return answers


@program("cluster/attach")
def a_driver_that_says_local_starts_its_own(ray):
    source = """
        import ENGINE as ray
        ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
        print(len(ray.nodes()), "other" in ray.cluster_resources())
    """
    return script_lines(ray, source)


@program("cluster/attach")
def what_a_joining_driver_may_not_say(ray):
    source = """
        import sys
        import ENGINE as ray
        try:
            ray.init(sys.argv[1], num_cpus=1, logging_level="ERROR")
        except ValueError as error:
            print("ValueError", str(error)[:60])
    """
    return script_lines(ray, source, address_of(ray))


@program("cluster/second-driver")
def what_ends_with_a_second_driver(ray):
    source = """
        import sys
        import ENGINE as ray
        ray.init(sys.argv[1], namespace="shared", logging_level="ERROR")

        @ray.remote(num_cpus=0)
        class Actor:
            def ping(self):
                return 1

        stays = Actor.options(name="stays", lifetime="detached").remote()
        ends = Actor.options(name="ends").remote()
        print(ray.get([stays.ping.remote(), ends.ping.remote()]))
        groups = [
            ray.util.placement_group([{"CPU": 1}], name="group stays", lifetime="detached"),
            ray.util.placement_group([{"CPU": 1}], name="group ends"),
        ]
        print([group.wait(20) for group in groups])
    """
    printed = script_lines(ray, source, address_of(ray))
    gone = until(lambda: len(ray.util.list_named_actors()) == 1)
    stays = ray.get_actor("stays")
    answer = [printed, gone, ray.get(stays.ping.remote(), timeout=30), outcome(lambda: ray.get_actor("ends"), "first")]
    until(lambda: "REMOVED" in [row["state"] for row in ray.util.placement_group_table().values()])
    states = sorted([row["name"], row["state"]] for row in ray.util.placement_group_table().values())
    ray.kill(stays)
    ray.util.remove_placement_group(ray.util.get_placement_group("group stays"))
    return [*answer, states, until(lambda: ray.available_resources().get("CPU") == 2)]


@program("cluster/second-driver")
def a_second_driver_that_is_killed(ray):
    source = """
        import os, signal, sys
        import ENGINE as ray
        ray.init(sys.argv[1], namespace="shared", logging_level="ERROR")
        actor = ray.remote(type("Actor", (), {"ping": lambda self: 1})).options(name="killed", num_cpus=1).remote()
        print(ray.get(actor.ping.remote()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    finished = run_script(ray, source, address_of(ray))
    gone = until(lambda: not ray.util.list_named_actors(), 40)
    return [finished["code"], finished["out"], gone, until(lambda: ray.available_resources().get("CPU") == 2, 40)]


@program("cluster/second-driver")
def namespaces_keep_names_apart(ray):
    source = """
        import sys
        import ENGINE as ray
        ray.init(sys.argv[1], namespace="another", logging_level="ERROR")
        actor = ray.remote(type("Actor", (), {"ping": lambda self: 2})).options(name="same", num_cpus=0).remote()
        print(ray.get(actor.ping.remote()))
        theirs = ray.get_actor("same", namespace="shared")
        print(ray.get(theirs.ping.remote()))
        print(sorted(entry["namespace"] for entry in ray.util.list_named_actors(all_namespaces=True)))
        print(ray.util.list_named_actors())
    """
    actor = ray.remote(type("Actor", (), {"ping": lambda self: 1})).options(name="same", num_cpus=0).remote()
    ray.get(actor.ping.remote(), timeout=30)
    answer = script_lines(ray, source, address_of(ray))
    ray.kill(actor)
    return answer


@program("cluster/second-driver")
def jobs_have_ids_of_their_own(ray):
    source = """
        import sys
        import ENGINE as ray
        ray.init(sys.argv[1], logging_level="ERROR")
        print(ray.get_runtime_context().get_job_id())
    """
    mine = ray.get_runtime_context().get_job_id()
    others = [script_lines(ray, source, address_of(ray))[0] for _ in range(2)]
    return [mine, len({mine, *others}), all(len(other) == 8 for other in others)]
