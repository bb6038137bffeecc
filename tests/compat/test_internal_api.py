"""What is held, by whom and why: the table of `memory_summary` and of the command line."""

import contextlib
import io
import json

import numpy as np
import pytest

import miniray
from miniray._private.internal_api import (
    get_memory_info_reply,
    get_state_from_address,
    memory_summary,
    store_stats_summary,
)
from miniray.cli.main import main
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(60)

TYPES = ("LOCAL_REFERENCE", "PINNED_IN_MEMORY", "USED_BY_PENDING_TASK", "CAPTURED_IN_OBJECT", "ACTOR_HANDLE")


@pytest.fixture(scope="module", params=["0", "1"], ids=["without sites", "with sites"])
def sites(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_record_ref_creation_sites", request.param)
        miniray.init("local", num_cpus=2)
        yield request.param == "1"
        miniray.shutdown()


@miniray.remote
class Keeper:
    def keep(self, refs):
        self.refs = refs

    def wait_for(self, refs, signal):
        miniray.get(signal[0])


@miniray.remote
def same(value):
    return value


def lines_of(**options):
    rows = memory_summary(line_wrap=False, **options).splitlines()
    return [row for row in rows if any(f"| {kind} " in row for kind in TYPES)]


def line_of(ref):
    """The driver's row of an object."""
    found = [row for row in lines_of() if ref.hex() in row and "| Driver " in row]
    return found[0] if found else ""


def test_each_way_to_hold_an_object_has_its_word(sites):
    local = miniray.put(np.ones(50_000))
    returned = same.remote(local)
    captured = miniray.put(1)
    box = miniray.put([captured])
    captured_id = captured.hex()
    del captured
    keeper = Keeper.remote()
    lent = miniray.put(2)
    miniray.get(keeper.keep.remote([lent]))
    miniray.get(returned)
    wait_for(lambda: any(captured_id in row and "CAPTURED_IN_OBJECT" in row for row in lines_of()))
    assert "LOCAL_REFERENCE" in line_of(local)
    assert "400" in line_of(local)
    assert "FINISHED" in line_of(returned)
    assert [row for row in lines_of() if "ACTOR_HANDLE" in row]
    wait_for(lambda: any(lent.hex() in row and "| Worker " in row for row in lines_of()))
    if sites:
        assert "(put object)" in line_of(local)
        assert "test_internal_api.py:test_each_way_to_hold_an_object_has_its_word:" in line_of(local)
        assert "(task call)" in line_of(returned)
        assert any("(deserialize actor task arg) " in row and "Keeper.keep" in row for row in lines_of())
        assert any("(actor call)" in row for row in lines_of())
        assert "test_internal_api.py" in local.call_site()
    else:
        assert "| disabled " in line_of(local)
        assert local.call_site() == ""
    del box


def test_what_somebody_views_is_pinned_for_as_long(sites):
    ref = miniray.put(np.ones(50_000))
    view = miniray.get(ref)
    assert "PINNED_IN_MEMORY" in line_of(ref)
    del view
    wait_for(lambda: "LOCAL_REFERENCE" in line_of(ref))


def test_an_argument_of_a_pending_task_says_so(sites):
    keeper = Keeper.remote()
    argument, signal = miniray.put(1), Keeper.remote().keep.remote([])
    blocked = same.remote(same.remote(1))
    miniray.get(blocked)
    never = keeper.wait_for.remote([argument], [_never()])
    wait_for(lambda: "USED_BY_PENDING_TASK" in line_of(argument))
    miniray.kill(keeper)
    with pytest.raises(miniray.exceptions.RayActorError):
        miniray.get(never)
    miniray.get(signal)


def _never():
    @miniray.remote(resources={"no such thing": 1})
    def never():
        pass

    return never.remote()


def test_nothing_is_shown_of_what_is_gone(sites):
    ref = miniray.put(1)
    hexed = ref.hex()
    assert line_of(ref)
    del ref
    wait_for(lambda: not [row for row in lines_of() if hexed in row])


def test_sorting_grouping_and_units(sites):
    refs = [miniray.put(np.ones(20_000 * number)) for number in (3, 1, 2)]
    positions = [
        [ref.hex() in row for ref in refs].index(True)
        for row in lines_of(sort_by="OBJECT_SIZE")
        if any(ref.hex() in row for ref in refs)
    ]
    assert positions == [1, 2, 0]
    assert "Grouping by stack trace..." in memory_summary(group_by="STACK_TRACE")
    assert " KB" in memory_summary(units="KB")
    assert "Display 1 entries per group" in memory_summary(num_entries=1)
    with pytest.raises(ValueError, match="sort-by"):
        memory_summary(sort_by="COLOUR")
    with pytest.raises(ValueError, match="group-by"):
        memory_summary(group_by="COLOUR")
    with pytest.raises(ValueError, match="unit"):
        memory_summary(units="STONE")


def test_the_state_of_the_stores(sites):
    ref = miniray.put(np.ones(1_000_000))
    assert "Plasma memory usage" in memory_summary(stats_only=True)
    reply = get_memory_info_reply(get_state_from_address(None))
    assert reply.store_stats.object_store_bytes_used >= 8_000_000
    assert reply.store_stats.object_store_bytes_primary_copy >= 8_000_000
    assert store_stats_summary(reply).startswith("--- Aggregate object store stats")
    del ref


def test_the_command_prints_the_same(sites):
    ref = miniray.put(1)
    address = miniray.get_runtime_context().gcs_address
    assert ref.hex() in printed("memory", "--address", address)
    assert "Object references" not in printed("memory", "--address", address, "--stats-only")
    groups = json.loads(printed("memory", "--address", address, "--format", "json"))["groups"]
    entries = [entry for group in groups.values() for entry in group["entries"]]
    (mine,) = [entry for entry in entries if entry["object_ref"] == ref.hex()]
    assert mine["reference_type"] == "LOCAL_REFERENCE"
    assert mine["owned"] and mine["local_ref_count"] == 1


def printed(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(arguments) == 0
    return out.getvalue()
