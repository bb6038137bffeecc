"""A worker process: connects to its head, then runs what owners push to it until it is told to leave or the head is
gone.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from typing import Any

import msgspec

from miniray import options
from miniray.logging_config import LoggingConfig
from miniray.messages import control
from miniray.messages.objects import Address
from miniray.processes import current
from miniray.processes.core_worker import CoreWorker
from miniray.processes.executor import Executor
from miniray.processes.head_link import HeadLink
from miniray.processes.task_runner import WorkerExit
from miniray.processes.trace import install_trace
from miniray.processes.worker_config import WorkerConfig
from miniray.processes.worker_output import WorkerOutput
from miniray.system import lifeline, process_start, user_log, worker_coverage
from miniray.system.limits import raise_file_limit
from miniray.system.sockets import ZmqTransport

_decode_config = msgspec.msgpack.Decoder(WorkerConfig).decode


def main(payload: bytes) -> None:
    """Run a worker; returns when it is to end. `payload` is a `WorkerConfig` in msgpack.

    The caller ends the process: nothing of the user's is left to be waited for.
    """
    config = _decode_config(payload)
    raise_file_limit()
    user_log.plain = True
    random.seed()
    if config.runtime_env:
        _enter_environment(config)
    line = lifeline.connect(config.lifeline, config.worker_id, config.token)
    transport = ZmqTransport(
        config.worker_id,
        config.socket_dir or None,
        f"w{os.getpid()}",
        kind="worker",
        version=config.version,
        token=config.token,
    )
    transport.epoch = config.epoch
    install_trace(transport, "worker")
    core = CoreWorker(
        transport,
        config.head,
        node_id=config.node_id,
        job_id=b"\0\0\0\0",
        store_dir=config.store_dir,
        mode="worker",
        session={
            "session_name": config.session_name,
            "session_dir": config.session_dir,
            "log_dir": config.log_dir,
            "spill_dir": config.spill_dir,
            "disk_threshold": config.disk_threshold,
            "task_oom_retries": config.oom_retries,
            "node_ip": config.node_ip,
        },
    )
    core.runtime_env = config.runtime_env
    core.main_context = current.TaskContext(os.urandom(24), "", 0)
    current.set_core(core)
    pid = os.getpid()
    output = WorkerOutput(core, config.out_file.format(pid=pid), config.err_file.format(pid=pid))
    executor = Executor(core, output)
    core.reactor.on_idle = executor.idle
    executor.runner.follows_driver = not config.working_dir
    executor.runner.adopt_job = lambda job_id: _adopt_job(core, output, job_id, config.working_dir)

    def head_gone(reason: str) -> None:
        # A worker of a dead session has nobody to work for; user code may be running and cannot be waited for.
        worker_coverage.save()
        os._exit(1)

    link = HeadLink(core, line, session_dir=config.session_dir, reconnect_s=config.reconnect_s, on_lost=head_gone)
    core.reactor.start_standby()
    core.post_to_head(control.RegisterWorker(core.address, os.getpid(), config.node_id))
    reason = executor.run()
    with core.lock:
        output.finish()
        executor.events.flush()
    _leave(core, link, reason)


def _enter_environment(config: WorkerConfig) -> None:
    """Run where the runtime environment says, and import from there first."""
    path = list(config.import_path)
    inherited = os.environ.get("PYTHONPATH", "")
    if path:
        os.environ["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, [inherited])])
    path += [entry for entry in inherited.split(os.pathsep) if entry]
    if config.working_dir:
        os.chdir(config.working_dir)
        # What the driver had added to its own path was not taken along, as in Ray.
        path += process_start.interpreter_path()
        sys.path[:] = [*dict.fromkeys(path)]
    else:
        sys.path[:0] = [entry for entry in path if entry not in sys.path]


def _adopt_job(core: CoreWorker, output: WorkerOutput, job_id: bytes, working_dir: str) -> None:
    """The first task of a job has come: look like its driver (import path, working directory, namespace)."""
    row: dict[str, Any] = core.head_client.request(lambda number: control.Query(number, "job", {"job_id": job_id}))
    config = row["config"]
    core.job_id = job_id
    core.tasks.use_job(job_id)
    core.namespace = row["namespace"]
    core.job_config = config
    options.set_strict_mode(bool(config.get("strict")))
    if config.get("as_ray"):
        from miniray.system import import_alias  # only where `ray` is to mean miniray

        import_alias.install()
    cwd = config.get("cwd")
    if working_dir:
        sys.path[:0] = [entry for entry in config.get("code_search_path", ()) if entry not in sys.path]
    else:
        for entry in reversed(config.get("sys_path", [])):
            if entry not in sys.path:
                sys.path.insert(0, entry)
    if cwd and not working_dir:
        try:
            os.chdir(cwd)
        except OSError:
            print(f"The driver's working directory {cwd} cannot be entered here.", file=sys.stderr)
    sys.argv = [config.get("argv0", "")]
    if config.get("logging_config"):
        from miniray.processes import structured_logging  # imports logging

        structured_logging.apply(LoggingConfig.from_dict(config["logging_config"]))
    worker_coverage.start()
    if config.get("log_to_driver", True):
        output.driver = Address(*row["driver"])
    hook = os.environ.get("__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR")  # `setup_hook`, not imported for this
    if hook:
        _run_hook(core, hook)


def _run_hook(core: CoreWorker, hook: str) -> None:
    from miniray.processes import setup_hook  # few jobs have one

    try:
        setup_hook.run_hook(hook, core.session["session_dir"])
    except setup_hook.SetupHookError as error:
        print(error, file=sys.stderr, flush=True)
        raise WorkerExit(f"SYSTEM_ERROR: {error}") from None


def _leave(core: CoreWorker, link: HeadLink, reason: str) -> None:
    """An orderly end: objects stay behind for the node, everybody is told, threads of the user are not waited for."""
    import atexit

    if core.actor is not None:
        core.actor.shut_down()
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass
    store = core.objects.memory.opened
    if store is not None:
        store.hand_over()
    core.close(reason)
    link.close()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    worker_coverage.save()
    if threading.active_count() > 1 or reason != "closed":
        os._exit(0)
