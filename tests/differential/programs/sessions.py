"""Starting and ending sessions: init and its arguments, the context it returns, joining, shutdown, auto-init.

Each program here has a process of its own; those that need several drivers run scripts.
"""

# mypy: ignore-errors
from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from ..catalog import program
from ..observe import outcome, run_script, script_lines

AREA = "init"
SESSION = {"num_cpus": 1}
QUIET = {"include_dashboard": False, "logging_level": "ERROR"}


@program("init/context", "init/twice", "init/shutdown", "top-level/before-init", fresh=True)
def one_session_from_start_to_end(ray):
    answers = {"before": ray.is_initialized(), "shutdown before": ray.shutdown()}
    context = ray.init(num_cpus=1, **QUIET)
    info = context.address_info
    answers["address info"] = {
        key: [type(info[key]).__name__, bool(info[key])]
        for key in (
            "gcs_address",
            "node_ip_address",
            "session_dir",
            "node_id",
            "address",
            "object_store_address",
            "raylet_socket_name",
        )
        if key in info
    }
    answers["items"] = [
        context["session_dir"] == info["session_dir"],
        context["node_id"] == info["node_id"] == ray.get_runtime_context().get_node_id(),
        "session_dir" in context,
        "no such key" in context,
        outcome(lambda: context["no such key"], text="none"),
        context.get("node_id") == info["node_id"],
        outcome(lambda: context.get("no such key", "default")),
        os.path.isdir(info["session_dir"]),
    ]
    answers["fields"] = [
        context.python_version == ".".join(map(str, sys.version_info[:3])),
        context.ray_version == ray.__version__,
        type(context.dashboard_url).__name__,
        type(context).__name__,
        len(context.address_info["node_id"]),
    ]
    answers["twice"] = outcome(lambda: ray.init(num_cpus=1, **QUIET))
    again = ray.init(ignore_reinit_error=True, **QUIET)
    answers["again"] = [type(again).__name__, again["node_id"] == context["node_id"]]
    answers["after"] = [ray.is_initialized(), ray.shutdown(), ray.is_initialized(), ray.shutdown()]
    return answers


@program("init/context", fresh=True)
def contexts_in_with_statements(ray):
    with ray.init(num_cpus=1, **QUIET) as context:
        inside = [ray.is_initialized(), type(context).__name__]
        value = ray.get(ray.put(1))
    return [inside, value, ray.is_initialized()]


@program("init/context", fresh=True)
def disconnecting_a_context(ray):
    context = ray.init(num_cpus=1, **QUIET)
    before = ray.is_initialized()
    context.disconnect()
    return [before, ray.is_initialized()]


@program("init/functions-over-sessions", "init/refs-of-old-session", "init/shutdown", fresh=True)
def two_sessions_one_after_the_other(ray):
    @ray.remote
    def double(value):
        return value * 2

    answers = []
    ray.init(num_cpus=1, **QUIET)
    answers.append(ray.get(double.remote(1)))
    old_put, old_task = ray.put("old"), double.remote(2)
    ray.get(old_task)
    first = ray.get_runtime_context().get_node_id()
    ray.shutdown()
    ray.init(num_cpus=2, **QUIET)
    answers += [
        ray.get(double.remote(3)),
        ray.get_runtime_context().get_node_id() == first,
        ray.cluster_resources()["CPU"],
    ]
    for ref in (old_put, old_task):
        got = outcome(lambda ref=ref: ray.get(ref, timeout=3), text="none")
        answers.append("returns" not in got)
    return answers


@program("init/arguments", fresh=True)
def arguments_that_are_honoured(ray):
    ray.init(
        num_cpus=3,
        num_gpus=2,
        resources={"custom": 2, "other": 1},
        labels={"zone": "here"},
        namespace="named",
        object_store_memory=150 * 1024 * 1024,
        configure_logging=True,
        logging_format="%(message)s",
        log_to_driver=False,
        **QUIET,
    )
    total = ray.cluster_resources()
    return [
        {key: total[key] for key in ("CPU", "GPU", "custom", "other")},
        total["object_store_memory"] == 150 * 1024 * 1024,
        ray.get_runtime_context().namespace,
        ray.nodes()[0]["Labels"].get("zone"),
    ]


@program("init/arguments", fresh=True)
def defaults_of_a_session(ray):
    import multiprocessing

    ray.init(include_dashboard=False, logging_level="ERROR")
    namespace = ray.get_runtime_context().namespace
    total = ray.cluster_resources()
    return [
        total["CPU"] == multiprocessing.cpu_count(),
        "GPU" in total,
        [len(part) for part in namespace.split("-")],
        ray.nodes()[0]["Labels"].keys() >= {"ray.io/node-id"},
    ]


@program("init/argument-errors", fresh=True)
def arguments_that_are_refused(ray):
    given = [
        ({"no_such_argument": 1}, "full"),
        ({"num_cpu": 1, "other": 2}, "full"),
        ({"num_cpus": -1}, "Resource quantities must be nonnegative. Violated by resource 'CPU'"),
        ({"num_cpus": 1.5}, "Resource quantities must all be whole numbers. Violated by resource 'CPU'"),
        ({"num_cpus": "two"}, "none"),
        ({"num_gpus": -1}, "Resource quantities must be nonnegative. Violated by resource 'GPU'"),
        ({"resources": {"CPU": 1}}, "`CPU` cannot be a custom resource because it is one of the default resources"),
        ({"resources": {"custom": -1}}, "Resource quantities must be nonnegative. Violated by resource 'custom'"),
        (
            {"resources": {"custom": 1.5}},
            "Resource quantities must all be whole numbers. Violated by resource 'custom'",
        ),
        ({"object_store_memory": 1000}, "full"),
        ({"object_store_memory": -1}, "full"),
        ({"local_mode": True}, "`local_mode` is no longer supported."),
        ({"logging_level": "nonsense"}, "full"),
    ]
    answers = []
    for arguments, text in given:
        answer = outcome(lambda arguments=arguments: bool(ray.init(**{"num_cpus": 1, **QUIET, **arguments})), text)
        answers.append([str(arguments), answer, ray.is_initialized()])
        ray.shutdown()
    return answers


@program("init/argument-errors", fresh=True)
def namespaces_that_are_refused(ray):
    answers = []
    for namespace in (5, ""):
        answers.append(outcome(lambda namespace=namespace: bool(ray.init(num_cpus=1, namespace=namespace, **QUIET))))
        ray.shutdown()
    return answers


@program("init/argument-errors", fresh=True)
def arguments_that_do_not_fit_an_address(ray):
    context = ray.init(num_cpus=1, **QUIET)
    source = """
    import sys
    import ENGINE as ray
    given = [{"num_cpus": 1}, {"num_gpus": 1}, {"resources": {"a": 1}}, {"object_store_memory": 10**8}]
    for arguments in [*given, {"labels": {"a": "b"}}]:
        try:
            ray.init(address=sys.argv[1], logging_level="ERROR", **arguments)
            print("accepted", arguments)
            ray.shutdown()
        except Exception as error:
            print(type(error).__name__, str(error))
    """
    return script_lines(ray, source, context.address_info["gcs_address"])


@program("init/address-local", "init/join", fresh=True)
def a_second_driver_joins_by_address(ray):
    context = ray.init(num_cpus=2, namespace="shared", resources={"custom": 1}, **QUIET)
    source = """
    import sys
    import ENGINE as ray
    context = ray.init(address=sys.argv[1], logging_level="ERROR", namespace="other")
    print(ray.cluster_resources()["custom"], ray.get(ray.remote(lambda: 5).remote()))
    print(context["node_id"] == sys.argv[2], ray.get_runtime_context().namespace)
    print(ray.get_runtime_context().get_job_id() == sys.argv[3])
    ray.shutdown()
    local = ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    print(local["node_id"] == sys.argv[2], ray.cluster_resources().get("custom"))
    """
    arguments = [context.address_info["gcs_address"], context["node_id"], ray.get_runtime_context().get_job_id()]
    return [script_lines(ray, source, *arguments), ray.get(ray.remote(lambda: "still here").remote())]


@program("init/join", fresh=True)
def environment_variables_name_the_address(ray):
    context = ray.init(num_cpus=2, resources={"custom": 1}, **QUIET)
    source = """
    import ENGINE as ray
    ray.init(logging_level="ERROR")
    print(ray.cluster_resources().get("custom"))
    """
    auto = source.replace("ray.init(", 'ray.init("auto", ')
    address = {"RAY_ADDRESS": context.address_info["gcs_address"]}
    return [script_lines(ray, source, env=address), script_lines(ray, auto, env=address)]


@program("init/address-invalid", alone=True)
def addresses_where_nobody_is(ray):
    return [
        outcome(lambda: bool(ray.init("auto", **QUIET)), text="none"),
        ray.is_initialized(),
    ]


@program("init/zero-cpus", fresh=True)
def a_head_without_cpus(ray):
    ray.init(num_cpus=0, **QUIET)
    needs_none = ray.remote(num_cpus=0)(lambda: "ran")
    needs_one = ray.remote(lambda: "never")
    ref = needs_one.remote()
    return [ray.get(needs_none.remote()), len(ray.wait([ref], timeout=1)[0]), ray.cluster_resources().get("CPU")]


@program("errors/auto-init", fresh=True)
def the_first_call_starts_a_session(ray):
    answers = []
    for call in (
        lambda: ray.get(ray.remote(lambda: 1).remote()),
        lambda: type(ray.get_runtime_context().get_node_id()).__name__,
        lambda: len(ray.nodes()),
    ):
        before = ray.is_initialized()
        answers.append([before, outcome(call), ray.is_initialized()])
        ray.shutdown()
    return answers


@program("errors/not-started", "top-level/before-init", fresh=True)
def without_auto_init(ray):
    return script_lines(
        ray,
        """
        import ENGINE as ray
        @ray.remote
        def function():
            return 1
        calls = {
            "put": lambda: ray.put(1),
            "get": lambda: ray.get([]),
            "remote": lambda: function.remote(),
            "nodes": lambda: ray.nodes(),
            "resources": lambda: ray.cluster_resources(),
            "wait": lambda: ray.wait([]),
            "get_actor": lambda: ray.get_actor("name"),
            "get_gpu_ids": lambda: ray.get_gpu_ids(),
        }
        for name, call in calls.items():
            try:
                print(name, call())
            except Exception as error:
                print(name, type(error).__name__, str(error).strip().splitlines()[0])
        print(ray.is_initialized())
        """,
        env={"RAY_ENABLE_AUTO_CONNECT": "0"},
    )


@program("init/exit", fresh=True)
def scripts_without_shutdown(ray):
    source = """
    import sys
    import ENGINE as ray
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    print(ray.get(ray.remote(lambda: "done").remote()))
    how = sys.argv[1]
    if how == "exit":
        sys.exit(7)
    if how == "raise":
        raise ValueError("at the top")
    """
    answers = []
    for how in ("exit", "raise"):
        finished = run_script(ray, source, how)
        answers.append([finished["code"], finished["out"], finished["err"].strip().splitlines()[-1:]])
    return answers


@program("tasks/main-module", fresh=True)
def scripts_read_from_stdin_and_command_lines(ray):
    code = textwrap.dedent(
        f"""
        import {ray.__name__} as ray
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        class Local:
            def value(self):
                return "of the main module"
        @ray.remote
        def function(given):
            return [given.value(), type(given).__name__]
        print(ray.get(function.remote(Local())))
        """
    )
    as_command = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    as_stdin = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False)
    return [as_command.stdout.split("\n"), as_stdin.stdout.split("\n")]


@program("init/fork", fresh=True)
def processes_that_the_user_forks(ray):
    ray.init(num_cpus=1, **QUIET)
    ref = ray.put("value")
    child = os.fork()
    if child == 0:
        os._exit(5)
    _, status = os.waitpid(child, 0)
    return [os.waitstatus_to_exitcode(status), ray.get(ref), ray.get(ray.remote(lambda: "works").remote())]


@program("output/prefix", fresh=True)
def what_workers_print(ray):
    finished = run_script(
        ray,
        """
        import sys
        import ENGINE as ray
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        @ray.remote
        def talk():
            print("to stdout")
            print("to stderr", file=sys.stderr)
        ray.get(talk.remote())
        ray.get(talk.options(name="by name").remote())
        import time
        time.sleep(1)
        ray.shutdown()
        """,
    )
    return [
        finished["code"],
        sorted(line for line in finished["out"] + finished["err"].splitlines() if "to std" in line),
    ]
