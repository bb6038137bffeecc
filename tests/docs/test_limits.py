"""The limits in the protocol notes are those of the code."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

NOTES = Path(__file__).parents[2] / "docs" / "protocols"
ROW = re.compile(r"^\| .* \| ([\d.,]+) ?(\w*) \| `(\w+)\.([A-Z_]+)` \|$", re.MULTILINE)
UNITS = {"": 1, "s": 1, "ms": 1e-3, "KiB": 1 << 10, "MiB": 1 << 20, "MB": 10**6}
PLACES = ("state_machines", "processes", "system")

LIMITS = [(note.stem, *row) for note in sorted(NOTES.glob("*.md")) for row in ROW.findall(note.read_text("utf-8"))]


def value_of(module, constant):
    for place in PLACES:
        name = f"miniray.{place}.{module}"
        if importlib.util.find_spec(name) is not None:
            value = getattr(importlib.import_module(name), constant)
            return value[1] if isinstance(value, tuple) else value  # of a setting: its default
    raise AssertionError(f"there is no module {module}")


@pytest.mark.parametrize(("note", "number", "unit", "module", "constant"), LIMITS)
def test_a_limit_is_what_the_note_says(note, number, unit, module, constant):
    assert float(number.replace(",", "")) * UNITS[unit] == pytest.approx(value_of(module, constant))


def test_every_row_of_a_table_of_limits_is_compared():
    rows = sum(
        len(table.strip().splitlines())
        for note in NOTES.glob("*.md")
        for table in re.findall(
            r"^\| what \| value \| where \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", note.read_text("utf-8"), re.M
        )
    )
    assert rows == len(LIMITS) > 10
