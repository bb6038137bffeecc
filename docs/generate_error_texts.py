"""Write docs/error-texts.md: the texts with which miniray refuses a call, found in the sources.

    python docs/generate_error_texts.py            # write it
    python docs/generate_error_texts.py --check    # exit code 1 and a difference if it is out of date

Each `raise Error("text")` outside of the inner rows is listed; what is filled in stands as three dots.
docs/troubleshooting.md explains those that do not explain themselves; its headings are looked up with `templates`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

TARGET = Path(__file__).with_name("error-texts.md")
DOTS = "..."
#: rows whose texts users do not meet: they are about miniray's own faults
INNER = ("messages", "state_machines", "testing", "compat")
_FIELD = re.compile(r"(?<!\{)\{[\w.!:\[\]]*\}(?!\})")


def package_root() -> Path:
    checkout = TARGET.parent.parent / "miniray"
    if checkout.is_dir():
        return checkout
    spec = importlib.util.find_spec("miniray")
    if spec is None or spec.origin is None:
        sys.exit("no miniray beside this folder, and none installed")
    return Path(spec.origin).parent


def template(node: ast.expr) -> str | None:
    """The text of an expression, with dots for what is filled in; None: it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _FIELD.sub(DOTS, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join((template(part) or DOTS) if isinstance(part, ast.Constant) else DOTS for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left), template(node.right)
        return None if left is None and right is None else (left or DOTS) + (right or DOTS)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return template(node.func.value)
    return None


def _one_line(text: str) -> str:
    return re.sub(r"(\.\.\.)(\s*\.\.\.)+", DOTS, " ".join(text.split()))


def _docstrings(tree: ast.Module) -> set[int]:
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def sources() -> Iterable[tuple[str, ast.Module]]:
    """Name and tree of each module."""
    root = package_root()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root.parent).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        yield name, ast.parse(path.read_text("utf-8"))


def templates() -> set[str]:
    """All texts in the sources, but for docstrings."""
    found = set()
    for _, tree in sources():
        docstrings = _docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and id(node) not in docstrings and (text := template(node)):
                found.add(_one_line(text))
    return found


def occurs(text: str, among: Iterable[str]) -> bool:
    """Whether one of the texts has all parts of this one, in order."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in _one_line(text).split(DOTS)), re.DOTALL)
    return any(pattern.search(candidate) for candidate in among)


def refusals(tree: ast.Module) -> dict[str, str]:
    """The texts that a module raises, and the error's name."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            function = node.exc.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            text = template(node.exc.args[0])
            if text and text.strip(". ") and name[:1].isupper():
                found.setdefault(_one_line(text), name)
    return found


def page() -> str:
    """The text of error-texts.md."""
    lines = [
        "# Error texts",
        "",
        "Made from the sources by `python docs/generate_error_texts.py`; do not edit. What a call refuses, it refuses",
        "with one of these; three dots stand for what is filled in. Those that need more than their own words are",
        "explained in [troubleshooting](troubleshooting.md).",
        "",
    ]
    for name, tree in sources():
        parts = name.split(".")
        texts = {} if len(parts) > 1 and parts[1] in INNER else refusals(tree)
        if texts:
            lines += [f"## {name}", "", "| error | text |", "|---|---|"]
            lines += [f"| `{texts[text]}` | {_cell(text)} |" for text in sorted(texts, key=str.lower)]
            lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is out of date")
    given = parser.parse_args()
    text = page()
    if not given.check:
        TARGET.write_text(text, "utf-8")
        return
    current = TARGET.read_text("utf-8") if TARGET.exists() else ""
    if current != text:
        print("\n".join(difflib.unified_diff(current.splitlines(), text.splitlines(), "now", "wanted", "", "", 1)))
        sys.exit(f"{TARGET.name} is out of date: run python docs/generate_error_texts.py")


if __name__ == "__main__":
    main()
