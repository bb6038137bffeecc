"""``miniray list``, ``miniray get`` and ``miniray summary``: the state API on the command line."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import warnings
from typing import Any

from miniray.cli.text_table import table, yaml
from miniray.util.state.client import ID_COLUMN, SCHEMAS, StateApiClient
from miniray.util.state.options import (
    DEFAULT_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    Filter,
    GetApiOptions,
    ListApiOptions,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
)

_KINDS = [resource.value.replace("_", "-") for resource in StateResource]
_KINDS_WITH_ID = [resource.value.replace("_", "-") for resource in ID_COLUMN]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the three commands."""
    parser = commands.add_parser("list", help="list tasks, actors, workers, nodes, objects, ... of a session")
    parser.add_argument("resource", type=_resource, metavar="{" + "|".join(_KINDS) + "}")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], type=_filter, metavar="KEY=VALUE", help="also KEY!=VALUE"
    )
    parser.add_argument("--limit", type=int, default=DEFAULT_LIMIT, help=f"rows, at most (default: {DEFAULT_LIMIT})")
    parser.add_argument("--detail", action="store_true", help="all columns; as YAML, unless --format says otherwise")
    _common(parser, ("default", "table", "json", "yaml"))
    parser.set_defaults(run=run_list)

    parser = commands.add_parser("get", help="show one task, actor, worker, node, ... with all details")
    parser.add_argument("resource", type=_resource_with_id, metavar="{" + "|".join(_KINDS_WITH_ID) + "}")
    parser.add_argument("id")
    _common(parser, ("yaml", "json"))
    parser.set_defaults(run=run_get)

    parser = commands.add_parser("summary", help="count tasks, actors or objects")
    parser.add_argument("resource", choices=[resource.value for resource in SummaryResource])
    _common(parser, ("table", "json", "yaml"))
    parser.set_defaults(run=run_summary)


def _common(parser: argparse.ArgumentParser, formats: tuple[str, ...]) -> None:
    parser.add_argument("--format", choices=formats, default=formats[0])
    parser.add_argument("--timeout", type=int, default=DEFAULT_RPC_TIMEOUT, help="seconds to wait for the head")
    parser.add_argument("--address", help="which session (default: RAY_ADDRESS, else the newest one)")


def _resource(text: str) -> StateResource:
    try:
        return StateResource(text.replace("-", "_"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_KINDS)}") from None


def _resource_with_id(text: str) -> StateResource:
    resource = _resource(text)
    if resource not in ID_COLUMN:
        raise argparse.ArgumentTypeError(f"{text} have no ids: get one of {', '.join(_KINDS_WITH_ID)}")
    return resource


def _filter(text: str) -> Filter:
    for predicate in ("!=", "="):
        key, found, value = text.partition(predicate)
        if found:
            return key.strip(), predicate, value.strip()
    raise argparse.ArgumentTypeError(
        f"The format of a given filter {text} is invalid: Cannot find the predicate. Please provide key=val or "
        "key!=val."
    )


def _print_warnings(caught: list[warnings.WarningMessage]) -> None:
    for item in caught:
        print(item.message, file=sys.stderr)


def run_list(given: argparse.Namespace) -> int:
    """Carry `list` out; the exit code."""
    options = ListApiOptions(limit=given.limit, timeout=given.timeout, filters=given.filter, detail=given.detail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = StateApiClient(given.address).list(given.resource, options, False, _explain=True)
    _print_warnings(caught)
    columns = SCHEMAS[given.resource].list_columns(given.detail)
    found = [{column: value for column, value in row.asdict().items() if column in columns} for row in rows]
    form = given.format
    if form == "default":
        form = "yaml" if given.detail else "table"
    if form == "json":
        print(json.dumps(found, default=str))
    elif form == "yaml":
        print(yaml(_shown(given.resource, found)))
    else:
        print(_list_table(given.resource, columns, found))
    return 0


def _shown(resource: StateResource, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [SCHEMAS[resource].humanify(row) for row in rows]


def _list_table(resource: StateResource, columns: list[str], rows: list[dict[str, Any]]) -> str:
    lines = [f"======== List: {datetime.datetime.now()} ========", "Stats:", "-" * 30, f"Total: {len(rows)}", ""]
    if not rows:
        return "\n".join([*lines, "No resource in the cluster"])
    body = [[index, *(row[column] for column in columns)] for index, row in enumerate(_shown(resource, rows))]
    return "\n".join([*lines, "Table:", "-" * 30, table(["", *columns], body), ""])


def run_get(given: argparse.Namespace) -> int:
    """Carry `get` out; the exit code."""
    client = StateApiClient(given.address)
    found = client.get(given.resource, given.id, GetApiOptions(timeout=given.timeout))
    if found is None and given.resource is StateResource.JOBS:
        # A driver has no submission id, which is what a job is got by; the list shows the id of its job.
        options = ListApiOptions(timeout=given.timeout, detail=True, filters=[("job_id", "=", given.id)])
        found = client.list(given.resource, options, False)
    if not found:
        print(f"Resource with id={given.id} not found in the cluster.")
        return 0
    rows = [row.asdict() for row in (found if isinstance(found, list) else [found])]
    if given.format == "json":
        print(json.dumps(rows, default=str))
    else:
        print(yaml(_shown(given.resource, rows)))
    return 0


def run_summary(given: argparse.Namespace) -> int:
    """Carry `summary` out; the exit code."""
    resource = SummaryResource(given.resource)
    answer = StateApiClient(given.address).summary(
        resource, options=SummaryApiOptions(timeout=given.timeout), raise_on_missing_output=False
    )
    summary = answer["cluster"]
    if given.format == "json":
        print(json.dumps(summary))
    elif given.format == "yaml":
        print(yaml(summary))
    else:
        print(_summary_table(resource, summary))
    return 0


def _summary_table(resource: SummaryResource, summary: dict[str, Any]) -> str:
    title = resource.value.capitalize()
    lines = [f"======== {title} Summary: {datetime.datetime.now()} ========", "Stats:", "-" * 36]
    for name, value in sorted(summary.items()):
        if name not in ("summary", "summary_by"):
            lines.append(f"{name}: {json.dumps(value)}")
    lines += ["", f"Table (group by {summary['summary_by']}):", "-" * 36]
    entries = summary["summary"]
    if not entries:
        return "\n".join([*lines, f"No {resource.value} in the cluster"])
    columns = sorted(next(iter(entries.values())))
    if resource is SummaryResource.OBJECTS:
        rows = [[key, *(entry[column] for column in columns)] for key, entry in entries.items()]
        return "\n".join([*lines, table(["call_site", *columns], rows), ""])
    rows = [[index, *(entry[column] for column in columns)] for index, entry in enumerate(entries.values())]
    return "\n".join([*lines, table(["", *columns], rows), ""])
