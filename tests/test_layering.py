"""The layers of the package, read from its import statements: a row imports only rows before it.

Imports inside functions and under TYPE_CHECKING count as well. Rows 1 and 2a also stay free of everything that could
touch the world, so that what they decide depends on nothing but what they are told.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

WORDS, MESSAGES, DECIDE, DO, RUN, API, TOOLS = (
    "0 words",
    "1 messages",
    "2a decide",
    "2b do",
    "3 run",
    "4 API",
    "5 tools",
)

#: Which row each top-level module or package belongs to. A new one has to be entered here.
ROW_OF = {
    WORDS: "absent_parts ids death_causes deprecation options init_options label_selectors language logging_config"
    " exceptions dual_exceptions task_errors refs version",
    MESSAGES: "messages",
    DECIDE: "state_machines",
    DO: "system",
    RUN: "processes",
    # "" is miniray/__init__.py
    API: " api actor actor_handle init_context remote_function runtime_context cluster_utils job_config runtime_env"
    " ray_engine actor_descriptor generators chrome_trace types client_builder cross_language dag"
    " scheduling_options",
    TOOLS: "__main__ _common _private _raylet cli cloudpickle compat experimental microbenchmark services testing util"
    " worker",
}
ROWS = {name: row for row, names in ROW_OF.items() for name in ([""] if row == API else []) + names.split()}

#: Which rows a row may import, besides itself.
MAY_IMPORT = {
    WORDS: {WORDS},
    MESSAGES: {WORDS, MESSAGES},
    DECIDE: {WORDS, MESSAGES, DECIDE},
    DO: {WORDS, MESSAGES, DO},
    RUN: {WORDS, MESSAGES, DECIDE, DO, RUN},
    API: {WORDS, MESSAGES, DECIDE, DO, RUN, API},
    TOOLS: {WORDS, MESSAGES, DECIDE, DO, RUN, API, TOOLS},
}

#: All that rows 1 and 2a may import from outside. None of it reads a clock, a file, a socket or chance.
PURE = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "string",
    "struct",
    "textwrap",
    "types",
    "typing",
    "msgspec",
}
#: Built-in functions that reach outside, and are no imports.
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

DEPENDENCIES = {"zmq", "msgspec", "cloudpickle", "psutil"}


@dataclass(frozen=True)
class Import:
    module: str  # who imports, "" for the root package
    target: str  # what, as written in full
    line: int
    deferred: bool  # inside a function, or for type checkers only


def module_names(root: Path) -> dict[str, Path]:
    """Every module under the package folder `root`, named relative to it."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def is_data(name: str) -> bool:
    """The shim that stands in for another package is data: it is never imported as a part of this one."""
    return name.startswith("compat.shim")


def imports_of(module: str, path: Path, package: str) -> Iterator[Import]:
    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, deferred)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [package, *module.split(".")] if module else [package]
                up = node.level - (path.name == "__init__.py")
                base = ".".join(filter(None, [*parts[: len(parts) - up], base]))
            for alias in node.names:
                yield Import(module, f"{base}.{alias.name}", node.lineno, deferred)
        deferred = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        deferred = deferred or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, deferred)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def resolve(target: str, modules: dict[str, Path], package: str) -> str | None:
    """The module that an import names: `ids` for `miniray.ids.JobID`, None for what is not of the package."""
    if target.split(".")[0] != package:
        return None
    name = target.partition(".")[2]
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def row_of(module: str) -> str | None:
    return ROWS.get(module.split(".")[0])


def violations(root: Path) -> list[str]:
    """What is wrong in the package whose folder is `root`, one line each."""
    package = root.name
    modules = module_names(root)
    found = []
    for module, path in modules.items():
        if is_data(module):
            continue
        row = row_of(module)
        if row is None:
            found.append(f"{module}: is in no row; enter it in ROW_OF")
            continue
        for entry in imports_of(module, path, package):
            target = resolve(entry.target, modules, package)
            where = f"{module or package}:{entry.line}: row {row}"
            outside = entry.target.split(".")[0]
            if target is not None:
                target_row = row_of(target)
                if target_row is not None and target_row not in MAY_IMPORT[row]:
                    found.append(f"{where} imports {target or package} of row {target_row}")
            elif row in (MESSAGES, DECIDE) and outside not in PURE:
                found.append(f"{where} imports {entry.target}, which is not pure")
            elif row != TOOLS and not entry.deferred and outside not in DEPENDENCIES | sys.stdlib_module_names:
                found.append(f"{where} imports {entry.target}, which is no dependency of the core")
        if row in (MESSAGES, DECIDE):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                    found.append(f"{module}:{node.lineno}: row {row} calls {node.func.id}, which is not pure")
    found += import_cycles(root)
    return found


def import_cycles(root: Path) -> list[str]:
    """Modules that need each other while they are imported. The root package is left out: all import it first."""
    modules = module_names(root)
    graph = {}
    for module, path in modules.items():
        if module and not is_data(module):
            entries = imports_of(module, path, root.name)
            targets = {resolve(entry.target, modules, root.name) for entry in entries if not entry.deferred}
            graph[module] = sorted(target for target in targets if target and target != module)
    found, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append("import cycle: " + " -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in graph.get(module, ()):
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return found


def package_root() -> Path:
    spec = importlib.util.find_spec("miniray")
    assert spec and spec.origin
    return Path(spec.origin).parent


def test_each_row_imports_only_the_rows_before_it():
    assert violations(package_root()) == []


def test_every_name_in_a_row_is_a_module_and_stands_there_once():
    names = [name for names in ROW_OF.values() for name in names.split()]
    assert sorted(names) == sorted({name.split(".")[0] for name in module_names(package_root())} - {""})


def test_every_module_says_what_it_is_for():
    silent = [
        name or "miniray"
        for name, path in module_names(package_root()).items()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


#: Ray has modules of these names, and programs import them.
NAMED_BY_RAY = {
    "_common.utils",
    "_private.test_utils",
    "_private.utils",
    "util.client.common",
    "util.helpers",
    "util.state.common",
}


def test_no_module_is_named_for_being_shared():
    names = {name.rpartition(".")[2] for name in set(module_names(package_root())) - NAMED_BY_RAY}
    assert not names & {"utils", "common", "helpers", "misc"}


@pytest.fixture
def tree(tmp_path):
    """A small package with one module in each row, and nothing wrong."""
    root = tmp_path / "miniray"
    for name in ("", "messages", "state_machines", "system", "processes", "util"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "__init__.py").write_text("")
    (root / "ids.py").write_text("import os\n")
    (root / "messages" / "tasks.py").write_text("import msgspec\nfrom miniray.ids import JobID\n")
    (root / "state_machines" / "scheduler.py").write_text("import heapq\nfrom miniray.messages import tasks\n")
    (root / "system" / "sockets.py").write_text("import zmq\nfrom miniray.messages.tasks import PushTask\n")
    (root / "processes" / "head.py").write_text(
        "import miniray.state_machines.scheduler\nimport miniray.system.sockets\n"
    )
    (root / "util" / "queue.py").write_text("import miniray\n")
    return root


def test_a_sound_tree_has_no_violations(tree):
    assert violations(tree) == []


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("ids.py", "import miniray.messages.tasks", "row 0 words imports messages.tasks of row 1 messages"),
        ("ids.py", "from .messages import tasks", "row 0 words imports messages.tasks of row 1 messages"),
        ("state_machines/scheduler.py", "from ..system import sockets", "imports system.sockets of row 2b do"),
        ("system/sockets.py", "from miniray.state_machines.scheduler import X", "imports state_machines.scheduler"),
        (
            "state_machines/scheduler.py",
            "def f():\n    from miniray.processes import head",
            "processes.head of row 3 run",
        ),
        ("processes/head.py", "from miniray import get", "row 3 run imports miniray of row 4 API"),
        ("processes/head.py", "if TYPE_CHECKING:\n    import miniray.util.queue", "util.queue of row 5 tools"),
        ("state_machines/scheduler.py", "import time", "imports time, which is not pure"),
        ("messages/tasks.py", "def f():\n    import random", "imports random, which is not pure"),
        ("state_machines/scheduler.py", "from os import path", "imports os.path, which is not pure"),
        ("state_machines/scheduler.py", "print('x')", "calls print, which is not pure"),
        ("processes/head.py", "import numpy", "imports numpy, which is no dependency of the core"),
        ("stray.py", "", "stray: is in no row"),
        ("system/reactor.py", "import miniray.system.wheel", "import cycle: system.reactor -> system.wheel"),
    ],
)
def test_a_planted_violation_is_caught(tree, module, line, expected):
    if "wheel" in line:
        (tree / "system" / "wheel.py").write_text("from miniray.system.reactor import Reactor\n")
    path = tree / module
    path.write_text((path.read_text() if path.exists() else "") + line + "\n")
    found = violations(tree)
    assert any(expected in line for line in found), found


def test_optional_packages_may_be_imported_where_they_are_used(tree):
    (tree / "processes" / "head.py").write_text("def f():\n    import numpy\n")
    (tree / "util" / "joblib.py").write_text("import joblib\n")
    assert violations(tree) == []
