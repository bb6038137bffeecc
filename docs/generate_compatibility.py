"""Write docs/compatibility.md: every public name of Ray's modules, and whether miniray has it.

    python docs/generate_compatibility.py                     # write it
    python docs/generate_compatibility.py --check             # exit code 1 if it is out of date
    python docs/generate_compatibility.py --record PYTHON     # ask the Ray of this interpreter again, then write it

What Ray has is recorded in docs/ray_names.json; what miniray has is looked at now. A name that is absent needs a reason
in REASONS or in `miniray.absent_parts`: without one there is no page.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from public_names import names_of  # noqa: E402

from miniray import absent_parts, init_options, options  # noqa: E402

TARGET = HERE / "compatibility.md"
RECORDED = HERE / "ray_names.json"

_CLUSTER = "it belongs to the processes of a Ray cluster"
_GPU = "it moves tensors between GPUs"
_COMPILED = "it belongs to Ray's compiled graphs"
_INNER = "Ray's inner bookkeeping, no API"
#: (module, name) -> why miniray does not have it. "*" stands for all names of the module that are not named.
REASONS = {
    ("", "AUTO_INIT_APIS"): _INNER,
    ("", "NON_AUTO_INIT_APIS"): _INNER,
    ("", "internal"): "an empty package",
    ("", "widgets"): "how Ray shows itself in notebooks",
    ("actor", "*"): _INNER,
    ("cluster_utils", "*"): "nodes that come and go by themselves: add and remove them with `Cluster`",
    ("exceptions", "PYTHON"): _INNER,
    ("experimental", "channel"): _COMPILED,
    ("experimental", "compiled_dag_ref"): _COMPILED,
    ("experimental", "gradio_utils"): _INNER,
    ("experimental", "util"): _COMPILED,
    ("experimental", "*"): _GPU,
    ("experimental.tqdm_ray", "*"): _INNER,
    ("dag", "*"): _COMPILED,
    ("job_config", "*"): _INNER,
    ("remote_function", "*"): _INNER,
    ("runtime_env", "*"): _INNER,
    ("util", "pdb"): "Ray's remote debugger: use local mode and `breakpoint()`",
    ("util", "rpdb"): "Ray's remote debugger: use local mode and `breakpoint()`",
    ("util", "debugpy"): "Ray's remote debugger: use local mode and `breakpoint()`",
    ("util", "ray_debugpy"): "Ray's remote debugger: use local mode and `breakpoint()`",
    ("util", "tracing"): "OpenTelemetry: `MINIRAY_TRACE=1` and `timeline()` show what is going on",
    ("util", "serialization_addons"): _INNER,
    ("util", "timer"): _INNER,
    ("util", "accelerators"): "not built yet",
    ("util", "iter"): "not built yet",
    ("util", "iter_metrics"): _INNER,
    ("util", "tpu"): "it manages slices of TPU machines",
    ("util.accelerators", "accelerators"): _INNER,
    ("util.accelerators", "tpu"): "it manages slices of TPU machines",
    ("util.actor_pool", "*"): _INNER,
    ("util.debug", "*"): _INNER,
    ("util.placement_group", "*"): _INNER,
    ("util.serialization", "*"): "serializers are told to `register_serializer`",
    ("util.state", "*"): _INNER,
}
#: Whole modules that are absent.
ABSENT_MODULES: dict[str, str] = {
    "util.accelerators": "not built yet",
}
#: (module, name) -> how it differs, where signatures do not show it.
NOTES = {
    ("", "init"): "`include_dashboard` and the parameters about cgroups are accepted and have no effect; more below",
    ("", "client"): "ends in `init`: there is no client server",
    ("", "ClientBuilder"): "ends in `init`: there is no client server",
    ("", "java_function"): "raises NotImplementedError: miniray runs Python only",
    ("", "java_actor_class"): "raises NotImplementedError: miniray runs Python only",
    ("", "wait"): "`fetch_local` has no effect: all nodes are on one machine",
    ("", "__version__"): "that of the Ray which miniray is held against",
    ("cluster_utils", "Cluster"): "nodes are virtual: one head process hosts them",
    ("experimental.tqdm_ray", "tqdm"): "lines in the driver's output, and no bars that redraw themselves",
    ("util", "connect"): "ends in `init`: there is no client server",
    ("util", "get_node_ip_address"): "127.0.0.1: all nodes are on one machine",
    ("util", "list_named_actors"): "",
}
#: Methods and parameters that users do not call: differences in them are none.
INNER = {"__init__"}
INNER_METHODS = {
    ("", "ObjectRef"): {"redis_shard_hash", "tensor_transport"},
    ("", "ObjectID"): {"redis_shard_hash", "tensor_transport"},
    ("job_config", "JobConfig"): {"ensure_logging_config"},
    ("actor", "ActorClass"): {"remote"},
    ("runtime_env", "RuntimeEnvConfig"): {"build_proto_runtime_env_config", "from_proto"},
}
#: Ray's data classes and enums, whose fields are no methods.
FIELDS = {"value", "encoding", "log_level", "n", "total", "DEFAULT_FLUSH_INTERVAL_SECONDS"}


def compare(module, name, theirs, ours):
    """("same" | "differs" | "absent", how or why)."""
    if ours is None:
        reason = REASONS.get((module, name)) or absent_parts.ABSENT_PARTS.get(f"{module}.{name}".lstrip("."))
        reason = reason or REASONS.get((module, "*"))
        if not reason:
            sys.exit(f"ray.{module}.{name} is absent, and nobody says why: enter it in REASONS of {__file__}")
        return "absent", reason
    found = list(differences(module, name, theirs, ours))
    note = NOTES.get((module, name))
    if note:
        found.insert(0, note)
    return ("differs", "; ".join(found)) if found else ("same", "")


def differences(module, name, theirs, ours):
    """What a signature shows."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if "call" in theirs and "call" in ours:
            yield from missing_parameters("", theirs["call"], ours["call"])
        if "class" in theirs and "class" in ours:
            skipped = FIELDS | INNER_METHODS.get((module, name), set())
            lacking = [method for method in theirs["class"] if method not in ours["class"] and method not in skipped]
            if lacking:
                yield "without " + ", ".join(f"`{method}`" for method in lacking)
            for method, wanted in theirs["class"].items():
                if method in ours["class"] and method not in INNER:
                    yield from missing_parameters(f"{method}: ", wanted, ours["class"][method])


def missing_parameters(prefix, theirs, ours):
    """Parameters that Ray takes and miniray does not. One that collects takes them all."""
    if theirs is None or ours is None or any(name.startswith("*") for name in ours):
        return
    lacking = [name for name in theirs if name not in ours and not name.startswith("*")]
    # Names of positional parameters differ now and then; so many as there are others is no lack.
    if len(theirs) > len(ours) and lacking:
        yield f"{prefix}no parameter " + ", ".join(f"`{name}`" for name in lacking)


def page():
    """The whole page."""
    recorded = json.loads(RECORDED.read_text())
    os.environ.setdefault("MINIRAY_STRICT", "0")
    mine = names_of("miniray")
    tables, counts = [], {"same": 0, "differs": 0, "absent": 0}
    for module, theirs in recorded["modules"].items():
        title = f"ray.{module}" if module else "ray"
        if module not in mine:
            reason = ABSENT_MODULES.get(module)
            if reason is None:
                sys.exit(f"{title} is absent, and nobody says why: enter it in ABSENT_MODULES of {__file__}")
            counts["absent"] += len(theirs)
            tables.append(
                f"### `{title}`\n\nAbsent: {reason}. Its names: {', '.join(f'`{name}`' for name in theirs)}.\n"
            )
            continue
        lines = ["| name | | |", "|---|---|---|"]
        same = []
        for name, value in theirs.items():
            status, text = compare(module, name, value, mine[module].get(name))
            counts[status] += 1
            if status == "same":
                same.append(name)
            lines.append(f"| `{name}` | {status} | {text} |")
        tables.append(f"### `{title}`\n\n" + "\n".join(lines) + "\n")
    total = sum(counts.values())
    return HEAD.format(version=recorded["version"], total=total, **counts, extensions=extensions()) + "\n".join(tables)


def extensions():
    """What miniray accepts and Ray refuses, from the tables of options."""
    rows = []
    for option in options.OPTIONS:
        if option.extension:
            rows.append((f"`@remote({option.name}=...)`", "also " + kinds(option.extension)))
    for name in options.EXTENSION_OPTIONS:
        rows.append((f"`@remote({name}=...)`", "Ray has no such option"))
    for option in (*init_options.INIT_OPTIONS, *init_options.PRIVATE_INIT_OPTIONS):
        if option.extension:
            rows.append((f"`init({option.name}=...)`", "also " + kinds(option.extension)))
    for option in init_options.EXTENSION_INIT_OPTIONS:
        rows.append((f"`init({option.name}=...)`", "Ray has no such parameter"))
    rows += [
        ("`kill(actor, graceful=True, timeout=...)`", "interrupts the method that runs; Ray has no such parameters"),
        ("`@remote()` with empty parentheses", "Ray refuses it"),
        ("`async def` tasks, partials and other callables as tasks", "Ray refuses them"),
        ("`init(local_mode=True)`", "Ray has removed it; `MINIRAY_LOCAL_MODE=1` works under the alias, too"),
        ("`init(address=...)` with the name of a session", "Ray refuses what has no port"),
    ]
    return "\n".join(f"| {what} | {text} |" for what, text in dict(rows).items())


def kinds(types):
    """Types as words."""
    return " or ".join(f"`{'str' if kind is str else getattr(kind, '__name__', kind)}`" for kind in types)


HEAD = """\
# Compatibility with Ray

For someone who has a Ray program. Written by `python docs/generate_compatibility.py`, which compares miniray with the
public names of Ray {version}: of {total}, {same} are the same, {differs} differ, {absent} are absent.

How to run a Ray program on miniray, without changing it:

| | |
|---|---|
| `miniray run script.py ...`, `miniray run -m module ...` | as `python`, and `import ray` gives miniray |
| `MINIRAY_AS_RAY=1 python script.py` | the same, where miniray is installed |
| `pytest --miniray` | for a test suite: see [ci.md](ci.md) |
| `import miniray.compat; miniray.compat.install()` | in the program itself, before `import ray` |
| `PYTHONPATH=$(python -c 'import miniray.compat as c; print(c.shim_folder())')` | where nothing else is possible |

It holds for workers and subprocesses, too. `ray` and all below it are miniray's own modules: `ray.exceptions` is
`miniray.exceptions`. A pickle names `miniray.*`, so that processes with and without the alias can read it. If the real
Ray is imported already, the alias refuses. `sys.modules["ray"] = None` hides it, as it hides Ray.

"Same" says that the name is there with Ray's parameters and methods; that it does the same is what
[the comparison with real Ray](../tests/differential/TABLE.md) is for.

## What miniray accepts and Ray refuses

Under the alias, and with `MINIRAY_STRICT=1`, all of this is refused with Ray's error, so that what runs on miniray runs
on Ray. `miniray run --extensions`, `pytest --miniray-extensions`, `compat.install(strict=False)` or `MINIRAY_STRICT=0`
allow it.

| | |
|---|---|
{extensions}

## Name by name

"""


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", metavar="PYTHON")
    given = parser.parse_args()
    if given.record:
        subprocess.run([given.record, str(HERE / "public_names.py"), "ray", str(RECORDED)], check=True, cwd="/")
    text = page()
    if given.check:
        if not TARGET.exists() or TARGET.read_text() != text:
            print(f"{TARGET.name} is out of date: run python docs/generate_compatibility.py", file=sys.stderr)
            sys.exit(1)
    else:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
