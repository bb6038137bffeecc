"""The envelope: every measurement runs, with sizes that take no time, and the goals are those of the issue."""

import importlib.util

import pytest

from benchmarks import envelope

pytestmark = pytest.mark.timeout(120)

TINY = envelope.Sizes(arguments=20, returns=5, objects=10, queued=50, inner_refs=20, waited=5, bytes=1 << 20)


def test_every_measurement_runs():
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("large arrays need numpy")
    told = []
    rows = envelope.measure("miniray", TINY, full=False, say=told.append)
    assert len(rows) == len(told) == len(envelope.MEASUREMENTS)
    assert [row.count for row in rows] == [20, 5, 10, 20, 5, 50, 1]
    assert all(row.seconds > 0 and row.published is None for row in rows)
    assert "bytes each" in rows[5].note


def test_a_goal_that_is_missed_is_named():
    row = envelope.Row("something", 10, 6.0, published=12.0)
    assert "2.0 times faster, MISSED" in envelope.as_text(row)
    assert "MISSED" not in envelope.as_text(row._replace(seconds=4.0))


def test_the_page_has_a_row_for_each():
    rows = [envelope.Row("something", 10, 6.0, published=12.0), envelope.Row("else", 1, 1.0, note="seen")]
    page = envelope.as_page(rows, "miniray", full=True)
    assert "| something | 10 | 6.000 | 600,000.0 | 12.0 | 2.0 |  |" in page
    assert page.endswith("| else | 1 | 1.000 | 1,000,000.0 |  |  | seen |\n")


def test_the_full_sizes_are_those_that_ray_publishes():
    assert envelope.FULL.arguments == envelope.FULL.objects == 10_000
    assert (envelope.FULL.returns, envelope.FULL.queued, envelope.FULL.bytes) == (3_000, 1_000_000, 8 << 30)
