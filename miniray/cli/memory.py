"""``miniray memory``: which objects are held, by whom and why."""

from __future__ import annotations

import argparse
import json
import shutil

from miniray._private import memory_table
from miniray.util.state.source import Source

#: Columns of a terminal from which on call sites are cut instead of shown in full.
_WIDE = 137


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("memory", help="show the object references that are held, and why")
    parser.add_argument("--address", help="which session (default: RAY_ADDRESS, else the newest one)")
    parser.add_argument(
        "--group-by", choices=memory_table.GROUP_BY, default="NODE_ADDRESS", type=str.upper, help="one table for each"
    )
    parser.add_argument(
        "--sort-by", choices=memory_table.SORT_BY, default="OBJECT_SIZE", type=str.upper, help="in ascending order"
    )
    parser.add_argument("--units", choices=memory_table.UNITS, default="B", type=str.upper, help="of sizes")
    parser.add_argument("--no-format", action="store_true", help="show call sites in full (default in a narrow window)")
    parser.add_argument("--stats-only", action="store_true", help="only the state of the object stores")
    parser.add_argument("--num-entries", "--n", type=int, metavar="N", help="rows per group, at most")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry the command out; the exit code."""
    found, stats = memory_table.references(Source(given.address))
    groups = memory_table.grouped(found, given.group_by, given.sort_by)
    if given.format == "json":
        print(json.dumps(memory_table.as_plain(groups, stats), indent=2))
        return 0
    if not given.stats_only:
        wrap = not given.no_format and shutil.get_terminal_size().columns >= _WIDE
        print(
            memory_table.as_text(
                groups,
                group_by=given.group_by,
                sort_by=given.sort_by,
                units=given.units,
                line_wrap=wrap,
                num_entries=given.num_entries,
            )
        )
    print(memory_table.stats_text(stats))
    return 0
