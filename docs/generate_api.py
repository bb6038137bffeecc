"""Write docs/api.md, the API reference, from the docstrings of the public modules.

    python docs/generate_api.py            # write it
    python docs/generate_api.py --check    # exit code 1 and a difference if it is out of date

The source is read and not run: the result does not depend on the Python that makes it, nor on what is installed.
Public is what Ray's programs can import: every module outside the inner rows (ROWS) and a few others (PLUMBING) whose
name has no underscore in front, and in it the names in `__all__`, else those without underscore that are defined or, in
a package's `__init__`, imported there from miniray. A name without a docstring is listed at the end.
"""

import argparse
import ast
import difflib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).with_name("api.md")
PACKAGE = "miniray"
ROWS = {"messages", "state_machines", "system", "processes"}
PLUMBING = {
    *(
        "absent_parts",
        "api",
        "death_causes",
        "deprecation",
        "dual_exceptions",
        "ids",
        "init_context",
        "init_options",
        "label_selectors",
        "options",
    ),
    *("refs", "task_errors", "version", "cli", "compat.shim", "__main__"),
    *(f"util.{name}" for name in ("channel_actor", "completion", "line_service", "named_actors", "node_ip")),
    *(f"util.{name}" for name in ("process_watch", "waiting_line")),
}
INNER = ROWS | PLUMBING
WIDTH = 100  # of a signature in one line
SECTIONS = ("Args", "Arguments", "Returns", "Raises", "Yields", "Example", "Examples", "Note", "Notes", "Attributes")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass
class Module:
    name: str  # "" for the package itself
    path: Path
    tree: ast.Module

    @property
    def full_name(self) -> str:
        return f"{PACKAGE}.{self.name}" if self.name else PACKAGE


def package_root() -> Path:
    checkout = TARGET.parent.parent / PACKAGE
    if checkout.is_dir():
        return checkout
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(f"no {PACKAGE} beside this folder, and none installed")
    return Path(spec.origin).parent


def load(root: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return modules


def is_public(name: str) -> bool:
    inner = any(name == prefix or name.startswith(prefix + ".") for prefix in INNER)
    return not inner and not any(part.startswith("_") for part in name.split("."))


# ---- Which names a module has, and where they are defined --------------------------------------------------------


def statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module, those under `if` and `try` included."""
    found = []
    for statement in body:
        found.append(statement)
        if isinstance(statement, (ast.If, ast.Try)):
            found += statements([*statement.body, *statement.orelse])
    return found


def declared_names(module: Module) -> list[str] | None:
    for statement in module.tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets) and isinstance(
            value, (ast.List, ast.Tuple)
        ):
            return [element.value for element in value.elts if isinstance(element, ast.Constant)]
    return None


def definitions(module: Module) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for statement in statements(module.tree.body):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.setdefault(statement.name, statement)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, statement)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.setdefault(statement.target.id, statement)
    return found


def imported(module: Module) -> dict[str, tuple[str, str]]:
    """What a module imports from miniray: local name -> (module, name there)."""
    found = {}
    for statement in statements(module.tree.body):
        if isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            package, _, name = statement.module.partition(".")
            if package == PACKAGE:
                found.update({alias.asname or alias.name: (name, alias.name) for alias in statement.names})
    return found


def find(modules: dict[str, Module], module: Module, name: str, depth: int = 5) -> tuple[Module, Definition] | None:
    own = definitions(module).get(name)
    if isinstance(own, (ast.Assign, ast.AnnAssign)) and isinstance(own.value, (ast.Name, ast.Attribute)) and depth:
        # "get = _worker.get": the documentation is where the value comes from.
        target = ast.unparse(own.value).split(".")
        source = imported(module).get(target[0])
        if source and len(target) == 2 and ".".join(filter(None, source)) in modules:
            return find(modules, modules[".".join(filter(None, source))], target[1], depth - 1) or (module, own)
        return find(modules, module, target[0], depth - 1) if len(target) == 1 and target[0] != name else (module, own)
    if own is not None:
        return module, own
    source = imported(module).get(name)
    if source is None or source[0] not in modules or not depth:
        return None
    return find(modules, modules[source[0]], source[1], depth - 1)


def public_names(module: Module) -> list[str]:
    names = declared_names(module)
    if names is None:
        own = definitions(module)
        names = [name for name in own if not isinstance(own[name], (ast.Assign, ast.AnnAssign))]
        if module.path.name == "__init__.py":
            names += imported(module)
    return sorted({name for name in names if not name.startswith("_")}, key=lambda name: (name.lower(), name))


# ---- How they are shown ------------------------------------------------------------------------------------------


def markdown(docstring: str) -> str:
    """A docstring as Markdown: sections with their items become lists, the rest stays."""
    lines, section = [], False
    joined = re.sub(r"^( {4}\w[\w, ]*,)\n {4,}(?=\w)", r"\1 ", docstring, flags=re.MULTILINE)  # names over two lines
    for line in joined.splitlines():
        heading = re.fullmatch(r"(\w+):", line)
        if heading and heading[1] in SECTIONS:
            lines += [f"**{heading[1]}**", ""]
            section = heading[1] not in ("Example", "Examples")
            continue
        if line and not line.startswith(" "):
            section = False
        item = re.fullmatch(r" {4}(\*{0,2}\w[\w., ]*?)(?: \(.*\))?: (.*)", line) if section else None
        if item:
            lines.append(f"* `{item[1]}`: {item[2]}")
        elif section and line.strip():
            continues = bool(lines) and lines[-1].strip() and not lines[-1].startswith("**")
            lines.append(("  " if continues and line.startswith("     ") else "") + line.strip())
        else:
            lines.append(line)
    return "\n".join(lines).strip().replace("``", "`")


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, skip_first: bool = False) -> str:
    arguments = ast.unparse(node.args)
    if skip_first:
        arguments = re.sub(r"^(self|cls)(: [^,]+)?(, /)?(, |$)", "", arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    shown = f"{prefix}{name}({arguments}){returns}"
    if len(shown) <= WIDTH:
        return shown
    # One argument per line: split at the commas that stand in no brackets.
    parts = re.split(r", (?![^\[\](){}]*[\])}])", arguments)
    return "\n".join([f"{prefix}{name}(", *(f"    {part}," for part in parts), f"){returns}"])


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}


def describe_class(node: ast.ClassDef, name: str, missing: list[str], place: str) -> list[str]:
    bases = [ast.unparse(base) for base in node.bases]
    lines = [f"### class `{name}{'(' + ', '.join(bases) + ')' if bases else ''}`", ""]
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            lines += ["```python", signature(member, name, skip_first=True).removesuffix(" -> None"), "```", ""]
    docstring = ast.get_docstring(node)
    if docstring:
        lines += [markdown(docstring), ""]
    else:
        missing.append(f"{place}.{name}")
    members = []
    for member in node.body:
        if not isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        text = ast.get_docstring(member)
        kinds = decorators(member)
        if member.name.startswith("_") or not text or "overload" in kinds or any(k.endswith(".setter") for k in kinds):
            continue
        plain = "property" in kinds or "cached_property" in kinds
        shown = member.name if plain else signature(member, member.name, "staticmethod" not in kinds)
        shown = re.sub(r"\(\s+", "(", re.sub(r",?\n\)", ")", shown)).replace("\n    ", " ")  # in a list, in one line
        body = markdown(text).replace("\n", "\n  ").replace("\n  \n", "\n\n")
        members.append(f"* `{shown}`: {body}" if "\n" not in body else f"* `{shown}`\n\n  {body}\n")
    return lines + members + ([""] if members else [])


def describe(module: Module, definition: Definition, name: str, missing: list[str], place: str) -> list[str]:
    if isinstance(definition, ast.ClassDef):
        return describe_class(definition, name, missing, place)
    if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        overloads = [
            statement
            for statement in module.tree.body
            if isinstance(statement, ast.FunctionDef) and statement.name == definition.name
        ]
        shown = overloads[-1]  # the implementation comes after its overloads
        docstring = next((text for text in map(ast.get_docstring, reversed(overloads)) if text), None)
        lines = [f"### `{name}`", "", "```python", signature(shown, name), "```", ""]
        if docstring:
            return [*lines, markdown(docstring), ""]
        missing.append(f"{place}.{name}")
        return lines
    value = definition.value
    text = f" = {ast.unparse(value)}" if value is not None and len(ast.unparse(value)) < 60 else ""
    return [f"### `{name}{text}`", ""]


def reference(modules: dict[str, Module]) -> str:
    lines = [
        "# API reference",
        "",
        "Made from the docstrings by `python docs/generate_api.py`; do not edit. What a call does is what the call of",
        "the same name does in Ray; where a docstring says more, that is miniray's own.",
        "",
    ]
    public = [module for name, module in modules.items() if is_public(name)]
    body: list[str] = []
    missing: list[str] = []
    contents = []
    for module in public:
        entries = []
        for name in public_names(module):
            found = find(modules, module, name)
            if found is not None:
                entries += describe(*found, name, missing, module.full_name)
        docstring = ast.get_docstring(module.tree) or ""
        if entries or docstring:
            anchor = module.full_name.replace(".", "")
            contents.append(f"* [`{module.full_name}`](#{anchor}): {docstring.splitlines()[0] if docstring else ''}")
            body += [f"## {module.full_name}", "", markdown(docstring), "", *entries]
    lines += [*contents, "", *body]
    if missing:
        lines += ["## Without a docstring", "", ", ".join(f"`{name}`" for name in sorted(missing)), ""]
    text = "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is out of date")
    parser.add_argument("--root", type=Path, help="the package folder (default: the one beside docs/)")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    text = reference(load(options.root or package_root()))
    if not options.check:
        options.output.write_text(text, encoding="utf-8")
        return
    current = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    if current != text:
        lines = difflib.unified_diff(current.splitlines(), text.splitlines(), "now", "wanted", lineterm="", n=1)
        print("\n".join([*lines][:40]))
        sys.exit(f"{options.output} is out of date: run python docs/generate_api.py")


if __name__ == "__main__":
    main()
