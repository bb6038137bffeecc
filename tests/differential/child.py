"""The process in which programs run: one engine, one session, the programs of one file, one JSON line for each.

Started by `run.py` as a script. Each program gets a time limit; the first that exceeds it ends this process, since the
session may be stuck: `run.py` goes on with the rest in a new one. Answers are written as they come, so that a death
loses only the program that was running.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
LONGEST_GRACE_SECONDS = 5


def main() -> int:
    """Runs the programs that were asked for; 3 if one of them exceeded its limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--programs", nargs="+", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--limit", type=int, required=True)
    arguments = parser.parse_args()
    # The script's folder leaves the path: programs are imported as part of their package, as workers will import them.
    sys.path[0] = str(TESTS)
    catalog = importlib.import_module("differential.catalog")
    engine = importlib.import_module(arguments.engine)
    file = catalog.program_file(arguments.file)
    chosen = [file[name] for name in arguments.programs]
    with open(arguments.output, "a", buffering=1) as output:

        def write(entry: dict[str, Any]) -> None:
            output.write(json.dumps(entry) + "\n")

        if not all(entry.fresh for entry in chosen):
            faulthandler.dump_traceback_later(with_grace(arguments.limit), exit=True)
            start_session(engine, dict(file.session))
        for entry in chosen:
            write({"started": entry.name})
            began = time.monotonic()
            answer = run_within_limit(entry, engine, arguments.limit)
            write({"finished": entry.name, "answer": answer, "seconds": round(time.monotonic() - began, 2)})
            if "exceeded" in answer:
                output.flush()
                faulthandler.dump_traceback(all_threads=True)
                os._exit(3)
    faulthandler.dump_traceback_later(arguments.limit, exit=True)
    engine.shutdown()
    cluster = getattr(importlib.import_module("differential.observe"), "cluster", None)
    if cluster is not None:
        cluster.shutdown()
    faulthandler.cancel_dump_traceback_later()
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    if left:
        print("threads left behind:", left, file=sys.stderr)
    return 0


def start_session(engine: Any, session: dict[str, Any]) -> None:
    """The session that the programs share; with `nodes` in it, a cluster of such nodes, which is `observe.cluster`."""
    nodes = session.pop("nodes", None)
    if nodes is None:
        engine.init(**{"include_dashboard": False, **session})
        return
    cluster = importlib.import_module(f"{engine.__name__}.cluster_utils").Cluster()
    importlib.import_module("differential.observe").cluster = cluster  # type: ignore[attr-defined]
    for node in nodes:
        cluster.add_node(**node)
    engine.init(address=cluster.address, **session)


def with_grace(limit: int) -> int:
    """When a program that does not let itself be interrupted takes its process with it."""
    return limit + min(limit, LONGEST_GRACE_SECONDS)


def run_within_limit(entry: Any, engine: Any, limit: int) -> dict[str, Any]:
    """The program's answer; an exception that it lets out is an answer of its own kind."""
    normalise = importlib.import_module("differential.normalise")
    observe = importlib.import_module("differential.observe")

    def stop(signum: int, frame: FrameType | None) -> None:
        raise observe.TimeLimitExceeded

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    faulthandler.dump_traceback_later(with_grace(limit), exit=True)
    try:
        return {"value": normalise.normalise(entry.function(engine))}
    except observe.TimeLimitExceeded:
        return {"exceeded": f"{limit} s"}
    except normalise.NotPlainData as error:
        return {"not plain data": str(error)}
    except BaseException as error:
        return {"error": normalise.normalise(observe.error_answer(error))}
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    sys.exit(main())
