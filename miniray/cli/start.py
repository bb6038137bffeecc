"""``miniray start``: a head that survives this shell and its drivers, or one more virtual node of a running one."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

from miniray.init_options import check_custom_resources, check_node_resources, check_object_store_memory
from miniray.messages.control import AddNode
from miniray.messages.startup import HeadConfig, HeadReady
from miniray.options import parse_size
from miniray.processes.control_client import ControlClient
from miniray.system import session
from miniray.system.process_start import HeadProcess, start_head
from miniray.system.ray_settings import spilling_directory
from miniray.version import __version__


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "start", help="start a head that programs join", description="Start a shared head, or add a node to one."
    )
    parser.add_argument("--head", action="store_true", help="start a head")
    parser.add_argument("--address", help="add a virtual node to the head at this address instead")
    parser.add_argument("--port", type=int, default=0, help="the number in the head's address (0: any free one)")
    parser.add_argument("--num-cpus", type=int, help="CPUs of the node (default: those of this machine)")
    parser.add_argument("--num-gpus", type=int, help="GPUs of the node (default: none)")
    parser.add_argument("--resources", type=_json_object, default={}, metavar="JSON", help="as '{\"custom\": 2}'")
    parser.add_argument("--labels", type=_labels, default={}, metavar="KEY=VALUE,...", help="labels of the node")
    parser.add_argument("--memory", type=_size, metavar="SIZE", help="memory for tasks, in bytes or as 4GB")
    parser.add_argument("--object-store-memory", type=_size, metavar="SIZE", help="shared memory for objects")
    parser.add_argument("--object-spilling-directory", metavar="DIR", help="where objects go that do not fit")
    parser.add_argument(
        "--system-config", type=_json_object, default={}, metavar="JSON", help="Ray's settings, by name"
    )
    parser.add_argument("--node-name", default="", help="a name for the node")
    parser.add_argument("--namespace", default="", help="namespace of drivers that name none")
    parser.add_argument("--session-dir", "--temp-dir", metavar="DIR", help="where the session's files go")
    parser.add_argument("--storage", metavar="DIR", help="keep the tables there, also when the session has ended")
    parser.add_argument("--block", action="store_true", help="stay, and end the head when this command is ended")
    for ignored in ("--include-dashboard", "--dashboard-host", "--dashboard-port", "--node-ip-address"):
        parser.add_argument(ignored, help=argparse.SUPPRESS)
    parser.add_argument("--disable-usage-stats", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    if given.head and given.address:
        raise ValueError("--head starts a new head, --address joins a running one: give one of them")
    if not given.head and not given.address:
        raise ValueError("`--head` or `--address` is required: `miniray start --head` starts a head")
    try:
        check_custom_resources(given.resources)
        check_object_store_memory(given.object_store_memory)
        quantities = {"CPU": given.num_cpus or 0, "GPU": given.num_gpus or 0, **given.resources}
        units = check_node_resources(quantities)
    except AssertionError as error:  # what a program that calls `init` so gets
        raise ValueError(str(error)) from error
    return _add_node(given, units) if given.address else _start_head(given)


def _add_node(given: argparse.Namespace, units: dict[str, int]) -> int:
    from miniray.system.machine import cpu_count  # only for this

    info = session.find_session(given.address)
    if info is None:
        raise ConnectionError(f"there is no head at {given.address!r}")
    if given.num_cpus is None:
        units["CPU"] = cpu_count() * 10000
    if given.memory is not None:
        units["memory"] = given.memory * 10000
    with ControlClient(info) as client:
        row = client.ask(
            lambda number: AddNode(number, units, given.labels, given.object_store_memory or 0, given.node_name)
        )
    print(f"Added node {row['NodeID']} to the session at {info.gcs_address}.")
    return 0


def _start_head(given: argparse.Namespace) -> int:
    for info, _ in session.waiting_sessions(given.session_dir):
        if given.port in (0, info.port) and (paths := session.take_over(info)) is not None:
            return _take_its_place(given, info, paths)
    config = HeadConfig(
        version=__version__,
        private=False,
        transport=os.environ.get("MINIRAY_TRANSPORT", "ipc"),
        start_method=os.environ.get("MINIRAY_START_METHOD", "fork"),
        num_cpus=given.num_cpus,
        num_gpus=given.num_gpus,
        memory=given.memory,
        object_store_memory=given.object_store_memory,
        resources={name: float(quantity) for name, quantity in given.resources.items()},
        labels=given.labels,
        port=given.port,
        port_required=bool(given.port),
        namespace=given.namespace,
        storage=os.path.abspath(given.storage) if given.storage else "",
        reconnect_s=_reconnect_seconds(),
        system_config=given.system_config,
    )
    capacity = given.object_store_memory or session.LEAST_CAPACITY
    spill_to = spilling_directory(given.system_config, given.object_spilling_directory)
    others = [info for info in session.running_sessions(given.session_dir) if not info.private]
    paths = session.create_session(given.session_dir, private=False, capacity=capacity, spill_to=spill_to)
    if paths.warning:
        print(paths.warning, file=sys.stderr)
    session.write_config(paths, config)
    head = start_head(paths, config)
    try:
        ready = _wait_ready(head)
    except BaseException:
        session.remove_session(paths.directory, paths.store)
        raise
    address = f"127.0.0.1:{ready.port}"
    print(_WELCOME.format(address=address, directory=paths.directory, pid=head.pid), flush=True)
    if others:
        print(_NOT_ALONE.format(others=", ".join(info.gcs_address for info in others)), file=sys.stderr)
    return _stay(head) if given.block else 0


def _wait_ready(head: HeadProcess) -> HeadReady:
    """Let the head live on without this process; if it does not get ready, it ends."""
    try:
        ready = head.wait_ready()
    except BaseException:
        head.kill()
        head.wait_exit(5.0)
        raise
    head.lifeline.close()
    return ready


def _reconnect_seconds() -> float:
    """How long drivers and workers wait for another head when this one is gone: Ray's setting."""
    if not hasattr(os, "fork"):
        return 0.0
    text = os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60")  # noqa: SIM112 (Ray's name)
    try:
        return max(0.0, float(text))
    except ValueError:
        raise ValueError(f"RAY_gcs_rpc_server_reconnect_timeout_s={text!r} is no number of seconds")


def _take_its_place(given: argparse.Namespace, info: session.SessionInfo, paths: session.SessionPaths) -> int:
    """The head of a session was killed, and its processes wait for another one: be that, as it was configured."""
    config = session.read_config(paths)
    config.epoch = info.epoch + 1
    config.head_id, config.node_id = info.address.worker_id, info.node_id
    config.port = info.port
    config.port_required = False
    head = start_head(paths, config)
    ready = _wait_ready(head)
    print(
        f"The head of the session {info.session_name} was gone, and its processes waited for another one: this head "
        "takes its place, with its settings.\n"
        + _WELCOME.format(address=f"127.0.0.1:{ready.port}", directory=paths.directory, pid=head.pid),
        flush=True,
    )
    return _stay(head) if given.block else 0


_WELCOME = """\
Local node IP: 127.0.0.1

--------------------
Ray runtime started.
--------------------

Next steps
  To connect to this session from Python:
    import miniray
    miniray.init()                      # or miniray.init(address='{address}')

  To add a virtual node to it:
    miniray start --address='{address}'

  To look at it, and to end it:
    miniray status
    miniray stop

  Its head is process {pid}, its files are in {directory}"""


_NOT_ALONE = """\
Another head of this user runs already, at {others}. Programs that name no address join the newest one, which is this
one; `miniray stop` ends them all. To be refused instead, give both the same --port."""


def _stay(head: HeadProcess) -> int:
    """Wait for the head; end it when this process is told to end."""
    print("--block: this command stays until the head ends; Ctrl-C ends both.", flush=True)

    def end(number: int, frame: object) -> None:
        os.kill(head.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    _, status = os.waitpid(head.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        print(f"miniray start: the head ended unexpectedly ({code})", file=sys.stderr)
    return 1 if code else 0


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is not a JSON string: {error}")
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"`{text}` is no JSON object")
    return value


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for item in filter(None, text.split(",")):
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise argparse.ArgumentTypeError(f"`{item}` is no KEY=VALUE")
        labels[key.strip()] = value.strip()
    return labels
