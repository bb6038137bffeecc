"""Coverage inside workers: the worker starts it itself, and saves before it is ended.

A forked process runs no ``.pth`` file, so coverage cannot start by itself there, and most workers are killed. So:

* Whoever measures (the pytest plugin) puts the settings into ``MINIRAY_COVERAGE``, which heads and workers inherit.
* A worker starts with its first job, when its import path is that of the driver. It writes a data file of its own,
  named as ``coverage`` names those of parallel processes, which are combined in the end.
* The head asks before it kills (`processes.head_shell`): the thread that reads the inbox saves, then the process ends.
* Every second, a thread saves what there is. What is lost is the last second of a process that somebody else kills
  with SIGKILL, or that calls `os._exit`.

Without the variable nothing of this is loaded.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

VARIABLE = "MINIRAY_COVERAGE"
#: Seconds between two saves.
INTERVAL = 1.0

_measurement: Any = None
_lock = threading.Lock()


def is_wanted() -> bool:
    """Whether workers are to be measured."""
    return bool(os.environ.get(VARIABLE))


def settings_of(measurement: Any) -> str:
    """The value of the variable: what a `coverage.Coverage` that runs here measures, and where it writes."""
    config = measurement.config
    source = list(config.source or ())
    return json.dumps(
        {
            "data_file": os.path.abspath(config.data_file),
            "config_file": next(map(os.path.abspath, config.config_files_read), False),
            "source": [os.path.abspath(entry) if os.path.isdir(entry) else entry for entry in source] or None,
            "source_pkgs": list(config.source_pkgs or ()) or None,
            "include": list(config.run_include or ()) or None,
            "omit": list(config.run_omit or ()) or None,
            "branch": bool(config.branch),
        }
    )


def start() -> None:
    """Measure this process, if that is wanted and not done yet."""
    global _measurement
    value = os.environ.get(VARIABLE)
    if not value or _measurement is not None:
        return
    try:
        import coverage
    except ImportError:
        return
    inherited = coverage.Coverage.current()
    if inherited is not None:
        inherited.stop()
    settings = json.loads(value)
    measurement = coverage.Coverage(data_suffix=True, **settings)
    # A worker that runs nothing of the user's is no news.
    measurement._warn_no_data = False
    measurement._warn_unimported_source = False
    measurement._warn_preimported_source = False
    measurement.start()
    _measurement = measurement
    threading.Thread(target=_save_now_and_then, name="miniray-coverage", daemon=True).start()


def save() -> None:
    """Write down what was measured so far; nothing when nothing is."""
    if _measurement is not None:
        with _lock:
            try:
                _measurement.save()
            except Exception:
                pass  # the data file's folder may be gone by now


def _save_now_and_then() -> None:
    while True:
        time.sleep(INTERVAL)
        save()
