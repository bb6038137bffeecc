"""`list_named_actors`, and what else `miniray.util` has."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import miniray
import miniray.util
from miniray.actor import kill
from miniray.util import list_named_actors


@miniray.remote(num_cpus=0)
class Named:
    pass


def test_names_are_listed_by_namespace(session: Any) -> None:
    first = Named.options(name="first").remote()
    second = Named.options(name="second", namespace="other").remote()
    assert list_named_actors() == ["first"]
    rows = list_named_actors(all_namespaces=True)
    assert {"name": "second", "namespace": "other"} in rows
    assert len(rows) == 2
    kill(first)
    kill(second)


def test_every_public_name_is_there() -> None:
    for name in miniray.util.__all__:
        assert getattr(miniray.util, name) is not None
    assert set(miniray.util.__all__) <= set(dir(miniray.util))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = miniray.util.nonsense


def test_importing_util_loads_none_of_its_parts() -> None:
    program = (
        "import sys, miniray.util\n"
        "print(sorted(name for name in sys.modules if name.startswith('miniray.util.') or name == 'asyncio'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=50)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_using_queues_and_channels_loads_no_asyncio() -> None:
    program = "import sys, miniray.util.queue, miniray.util.channel\nprint('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=50)
    assert (done.stdout, done.stderr) == ("False\n", "")
