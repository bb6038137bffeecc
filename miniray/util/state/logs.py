"""The log files of a session: which there are, and what is in them."""

from __future__ import annotations

import codecs
import fnmatch
import os
import re
import time
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

from miniray.messages.state import TaskRow
from miniray.util.state.exception import RayStateApiException
from miniray.util.state.options import DEFAULT_RPC_TIMEOUT, GetLogOptions
from miniray.util.state.source import Source
from miniray.util.state.tables import merge_answer

_CHUNK = 64 * 1024
_ANSI = re.compile(r"\x1b[^m]*m")
#: seconds between two looks at a log that is followed
_INTERVAL = 0.5
#: Ray's groups of log files, by how the name begins and ends
_GROUPS = (("worker", ".out", "worker_out"), ("worker", ".err", "worker_err"), ("head", "", "gcs_server"))


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
) -> dict[str, list[str]]:
    """The names of the log files, in groups.

    Args:
        address: which session.
        node_id: whose files; this or `node_ip` has to be given. All virtual nodes share one directory.
        node_ip: the same by address.
        glob_filter: a pattern that the names match, as ``"*worker*"``.
        timeout: seconds.

    Raises:
        RayStateApiException: there is no such node.
        ConnectionError: there is no session.
    """
    assert node_ip is not None or node_id is not None, "At least one of node ip and node id is required"
    source = Source(address)
    _check_node(source, node_id, node_ip, timeout)
    directory = source.query("session", timeout)["log_dir"]
    groups: dict[str, list[str]] = {}
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        name = entry.name + "/" if entry.is_dir() else entry.name
        if fnmatch.fnmatchcase(entry.name, glob_filter or "*"):
            groups.setdefault(_group_of(name), []).append(name)
    return groups


def _group_of(name: str) -> str:
    for beginning, end, group in _GROUPS:
        if name.startswith(beginning) and name.endswith(end):
            return group
    return "internal"


def _check_node(source: Source, node_id: str | None, node_ip: str | None, timeout: float) -> None:
    for node in source.query("node_states", timeout):
        if node_id in (None, node["node_id"]) and node_ip in (None, node["node_ip"], "localhost"):
            return
    given = f"Node ID {node_id}" if node_id else f"Node IP {node_ip}"
    raise RayStateApiException(f"Given {given} is not available. It means the node is dead, or doesn't exist.")


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Generator[Any, None, None]:
    """The content of a log file, piece by piece.

    Args:
        address: which session.
        node_id: whose file, where it is named by `filename` or `pid`; this or `node_ip` has to be given then.
        node_ip: the same by address.
        filename: its name in the log directory.
        actor_id: the log of the worker that this actor lives in.
        task_id: the log of the worker that this task ran in: other tasks may have written to it, too.
        pid: the log of the worker with this process id.
        follow: go on as long as the session runs.
        tail: lines from the end; -1: all.
        timeout: seconds for the questions to the head.
        suffix: "out" or "err".
        encoding: None: bytes are given.
        errors: what to do about bytes that cannot be decoded.
        submission_id: jobs are not submitted here: there is no such log.
        attempt_number: of the task.
        _interval: seconds between two looks at a log that is followed.
        filter_ansi_code: leave out colours.

    Raises:
        RayStateApiException: there is no such log.
        ValueError: nothing says which log is meant.
        ConnectionError: there is no session.
    """
    options = GetLogOptions(
        timeout=timeout,
        node_id=node_id,
        node_ip=node_ip,
        filename=filename,
        actor_id=actor_id,
        task_id=task_id,
        pid=pid,
        lines=tail,
        interval=_interval,
        media_type="stream" if follow else "file",
        suffix=suffix,
        submission_id=submission_id,
        attempt_number=attempt_number,
    )
    source = Source(address)
    path = find_log(source, options)
    chunks = _read(path, options.lines, _interval or _INTERVAL if follow else None)
    if encoding is None:
        yield from chunks
        return
    for text in codecs.iterdecode(chunks, encoding, errors or "strict"):  # a character may lie in two chunks
        yield _ANSI.sub("", text) if filter_ansi_code else text


def find_log(source: Source, options: GetLogOptions) -> str:
    """The path of the log that is meant.

    Raises:
        RayStateApiException: there is none.
    """
    timeout = options.timeout
    if options.submission_id:
        raise RayStateApiException(f"Submission job ID {options.submission_id} not found.")
    if options.actor_id:
        return _of_worker(source, "pid", _pid_of_actor(source, options.actor_id, timeout), options)
    if options.task_id:
        return _of_worker(source, "worker_id", _worker_of_task(source, options), options)
    _check_node(source, options.node_id, options.node_ip, timeout)
    if options.pid:
        return _of_worker(source, "pid", options.pid, options)
    directory = os.path.realpath(source.query("session", timeout)["log_dir"])
    path = os.path.realpath(os.path.join(directory, options.filename or ""))
    if not path.startswith(directory + os.sep) or not os.path.isfile(path):
        raise RayStateApiException(f"A file is not found at: {os.path.join(directory, options.filename or '')}")
    return path


def _pid_of_actor(source: Source, actor_id: str, timeout: float) -> int:
    for row in source.query("actor_states", timeout):
        if row["actor_id"] == actor_id:
            if not row["pid"]:
                raise RayStateApiException(f"Worker ID for Actor ID {actor_id} not found. Actor is not scheduled yet.")
            return int(row["pid"])
    raise RayStateApiException(f"Actor ID {actor_id} not found.")


def _worker_of_task(source: Source, options: GetLogOptions) -> str:
    answer = source.query("task_reports", options.timeout)
    merged, _ = merge_answer(answer)
    for (task_id, attempt), values in merged.items():
        if task_id.hex() == options.task_id and attempt == options.attempt_number:
            worker_id = TaskRow(*values).worker_id
            if not worker_id:
                raise RayStateApiException(
                    f"Could not find log file for task: {options.task_id} (attempt {attempt}): it is not scheduled yet."
                )
            return worker_id.hex()
    raise RayStateApiException(
        f"Could not find log file for task: {options.task_id} (attempt {options.attempt_number}) with suffix: "
        f"{options.suffix}"
    )


def _of_worker(source: Source, column: str, value: Any, options: GetLogOptions) -> str:
    for row in source.query("worker_states", options.timeout):
        path: str = row["log_files"][options.suffix == "err"]
        if row[column] == value and path and os.path.isfile(path):
            return path
    raise RayStateApiException(f"No log file of a worker with {column} {value} was found.")


def _read(path: str, lines: int, interval: float | None) -> Iterator[bytes]:
    with open(path, "rb") as file:
        if lines >= 0:
            file.seek(_start_of_last_lines(file, lines))
        while True:
            chunk = file.read(_CHUNK)
            if chunk:
                yield chunk
            elif interval is None or not os.path.exists(path):
                return
            else:
                time.sleep(interval)


def _start_of_last_lines(file: BinaryIO, lines: int) -> int:
    size = position = file.seek(0, os.SEEK_END)
    if not size or not lines:
        return size
    file.seek(size - 1)
    wanted = lines + (file.read(1) == b"\n")  # newlines, from the end: the very last one begins no line
    while position > 0:
        step = min(_CHUNK, position)
        position -= step
        file.seek(position)
        block = file.read(step)
        count = block.count(b"\n")
        if count < wanted:
            wanted -= count
            continue
        at = len(block)
        for _ in range(wanted):
            at = block.rfind(b"\n", 0, at)
        return position + at + 1
    return 0
