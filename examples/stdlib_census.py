"""A census of the standard library: every source file of the running Python, measured in parallel.

Tasks parse batches of files and leave a partial result each in the object store. A tree of merge tasks, which take
those results as references, makes one of them; the driver fetches only that one. A file that is no valid Python (the
standard library ships some, for its own tests) is reported at the end and stops nothing.

    python examples/stdlib_census.py --output census.svg

The same program runs on Ray: replace the import below by "import ray".
"""

import argparse
import ast
import os
import sys
import sysconfig
import time
import tokenize
import warnings
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path

import miniray as ray

BATCHES_PER_CPU = 40  # enough that the last batches end together, few enough that a batch outweighs its call
FAN_IN = 8  # partial results per merge
TOP = 10  # the functions to remember and the rows to show

DECISIONS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension)


# ---- What is measured --------------------------------------------------------------------------------------------


@dataclass
class Census:
    """Counts over some files. Two of them add up, so any tree of merges gives the same result."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    imports: Counter = field(default_factory=Counter)  # top-level module -> files that import it
    package_lines: Counter = field(default_factory=Counter)
    complexities: Counter = field(default_factory=Counter)  # cyclomatic complexity -> functions that have it
    top_functions: list = field(default_factory=list)  # (complexity, lines, "path:line", name), the greatest first
    problems: list = field(default_factory=list)  # ("path", "what is wrong with it")

    def add(self, other: "Census") -> None:
        for name in ("files", "lines", "functions", "classes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("imports", "package_lines", "complexities"):
            getattr(self, name).update(getattr(other, name))
        self.problems = sorted(self.problems + other.problems)
        # Ties are settled by place, so that the table does not depend on which batch came first.
        self.top_functions = sorted(
            self.top_functions + other.top_functions, key=lambda row: (-row[0], -row[1], row[2])
        )[:TOP]


def package_of(path: str) -> str:
    return path.split("/", 1)[0].removesuffix(".py")


def read_source(path: Path) -> str:
    """The text of a file, decoded as Python decodes it: by its coding line or byte order mark, else UTF-8."""
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    return data.decode(encoding)


def measure_file(root: str, path: str) -> Census:
    try:
        source = read_source(Path(root, path))
    except (OSError, SyntaxError, UnicodeError) as error:
        kind = "unreadable" if isinstance(error, OSError) else "bad encoding"
        return Census(problems=[(path, f"{kind}: {error}")])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old code is full of odd escapes; the census is not about them
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        where = f" in line {error.lineno}" if getattr(error, "lineno", None) else ""
        return Census(problems=[(path, f"syntax error{where}: {getattr(error, 'msg', error)}")])
    except (RecursionError, MemoryError):
        return Census(problems=[(path, "too deeply nested for this parser")])

    lines = source.count("\n") + (not source.endswith("\n") and bool(source))
    census = Census(files=1, lines=lines, package_lines=Counter({package_of(path): lines}))
    imported = set()
    # Every node with the innermost function around it; a function is [complexity, lines, "path:line", name].
    functions = []
    pending = [(tree, None, "")]
    while pending:
        node, function, prefix = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            function = [1, length, f"{path}:{node.lineno}", prefix + node.name]
            functions.append(function)
            prefix += node.name + "."
        elif isinstance(node, ast.ClassDef):
            census.classes += 1
            prefix += node.name + "."
        elif isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and not node.level:
                imported.add(node.module.split(".")[0])
        elif function is not None:
            if isinstance(node, DECISIONS):
                function[0] += 1 + (len(node.ifs) if isinstance(node, ast.comprehension) else 0)
            elif isinstance(node, ast.BoolOp):
                function[0] += len(node.values) - 1
            elif isinstance(node, ast.Match):
                function[0] += len(node.cases)
        pending.extend((child, function, prefix) for child in ast.iter_child_nodes(node))
    census.functions = len(functions)
    census.imports.update(imported)
    census.complexities.update(function[0] for function in functions)
    census.add(Census(top_functions=[tuple(function) for function in functions]))
    return census


# ---- The tasks ---------------------------------------------------------------------------------------------------


@ray.remote
def measure(root, paths):
    census = Census()
    for path in paths:
        census.add(measure_file(root, path))
    return census


@ray.remote
def merge(*parts):
    census = Census()
    for part in parts:
        census.add(part)
    return census


def run_census(root: str, batches: list, progress: "Progress"):
    """Start a task for each batch, merge results as they come, and return the reference to the whole."""
    files_of = {measure.remote(root, paths): len(paths) for paths in batches}
    running = list(files_of)
    levels = [[]]  # levels[n]: results of n merges, at most FAN_IN of them
    while running:
        done, running = ray.wait(running)
        progress.advance(sum(files_of.pop(ref) for ref in done))
        levels[0] += done
        for depth, refs in enumerate(levels):
            if len(refs) == FAN_IN:
                if depth + 1 == len(levels):
                    levels.append([])
                levels[depth + 1].append(merge.remote(*refs))
                refs.clear()
    return merge.remote(*(ref for refs in levels for ref in refs))


# ---- What the user sees ------------------------------------------------------------------------------------------


class Progress:
    """A bar on a terminal; elsewhere a line for each quarter."""

    def __init__(self, total: int):
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.live = sys.stderr.isatty()

    def advance(self, count: int) -> None:
        before, self.done = self.done, self.done + count
        if self.live:
            width = 32
            filled = width * self.done // self.total
            end = "\n" if self.done == self.total else ""
            bar = "#" * filled + "." * (width - filled)
            print(f"\r[{bar}] {self}", end=end, file=sys.stderr, flush=True)
        elif before * 4 // self.total < self.done * 4 // self.total:
            print(self, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        percent = 100 * self.done // self.total
        seconds = time.monotonic() - self.start
        return f"{self.done:>5,} of {self.total:,} files  {percent:>3}%  {seconds:5.1f} s"


def table(title: str, header: tuple, rows: list) -> str:
    """Columns of numbers to the right, columns of text to the left; the last column is never padded."""
    cells = [header, *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [title, ""]
    for number, row in enumerate(cells):
        aligned = []
        for i, cell in enumerate(row):
            numeric = bool(rows) and isinstance(rows[0][i], int)
            aligned.append(cell.rjust(widths[i]) if numeric else cell.ljust(widths[i]))
        lines.append("  " + "  ".join(aligned).rstrip())
        if number == 0:
            lines.append("  " + "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def report(census: Census) -> str:
    parts = []
    largest = sorted(census.package_lines.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    share = [(name, lines, f"{100 * lines / max(census.lines, 1):.1f}%") for name, lines in largest]
    parts.append(table("Largest packages", ("package", "lines", "share"), share))
    rows = [(complexity, length, name, place) for complexity, length, place, name in census.top_functions]
    parts.append(table("Most complex functions", ("complexity", "lines", "function", "place"), rows))
    popular = sorted(census.imports.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    parts.append(table("Most imported modules", ("module", "files"), popular))
    if census.problems:
        title = f"Not measured ({len(census.problems)} files that are no valid Python)"
        rows = [(path, reason if len(reason) <= 78 else reason[:75] + "...") for path, reason in census.problems]
        parts.append(table(title, ("file", "reason"), rows))
    return "\n\n".join(parts)


# ---- The chart ---------------------------------------------------------------------------------------------------

INK, MUTED, GRID, BLUE, ORANGE = "#1f2933", "#66727f", "#e3e8ee", "#2f6fb3", "#d9822b"


def text(x, y, content, size=13, color=INK, anchor="start", weight="normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(str(content))}</text>'
    )


def bar(x, y, width, height, color) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="2" fill="{color}"/>'


def horizontal_bars(x, y, width, title, rows, color) -> list:
    """A panel with one bar per (label, value), greatest first. A giant's bar is broken, else the rest were slivers."""
    label_width, value_width, step = 130, 64, 26
    parts = [text(x, y, title, 15, weight="600")]
    values = [value for _, value in rows]
    scale = max([1, *values]) if len(values) < 2 or values[0] < 4 * values[1] else 1.3 * values[1]
    for i, (label, value) in enumerate(rows):
        top = y + 20 + i * step
        length = (width - label_width - value_width) * min(value / scale, 1)
        shown = label if len(label) <= 17 else label[:16] + "…"
        parts.append(text(x + label_width - 10, top + 14, shown, 12.5, anchor="end"))
        parts.append(bar(x + label_width, top + 2, length, step - 9, color))
        if value > scale:
            cut = x + label_width + length * 0.9
            parts.append(f'<path d="M{cut:.1f} {top + 22} l8 -24" stroke="#ffffff" stroke-width="5"/>')
        parts.append(text(x + label_width + length + 7, top + 14, f"{value:,}", 12, MUTED))
    return parts


def histogram(x, y, width, height, title, complexities) -> list:
    """Functions per class of complexity. Each class is twice as wide as the one before."""
    classes = [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, None)]
    counts = [
        sum(count for value, count in complexities.items() if value >= low and (high is None or value <= high))
        for low, high in classes
    ]
    parts = [text(x, y, title, 15, weight="600")]
    bottom, greatest, step = y + height - 28, max(*counts, 1), width / len(classes)
    parts.append(f'<line x1="{x}" y1="{bottom}" x2="{x + width}" y2="{bottom}" stroke="{GRID}" stroke-width="1.5"/>')
    for i, ((low, high), count) in enumerate(zip(classes, counts, strict=True)):
        bar_height = (bottom - y - 46) * count / greatest
        middle = x + (i + 0.5) * step
        if count:
            parts.append(bar(middle - step * 0.38, bottom - bar_height, step * 0.76, bar_height, ORANGE))
            parts.append(text(middle, bottom - bar_height - 6, f"{count:,}", 11.5, MUTED, "middle"))
        label = f"{low}+" if high is None else str(low) if low == high else f"{low}–{high}"
        parts.append(text(middle, bottom + 18, label, 12, anchor="middle"))
    return parts


def chart(census: Census, title: str) -> str:
    width, height, gap, left = 1100, 650, 60, 40
    panel = (width - 2 * left - gap) / 2
    right = left + panel + gap
    packages = sorted(census.package_lines.items(), key=lambda item: (-item[1], item[0]))[:18]
    modules = sorted(census.imports.items(), key=lambda item: (-item[1], item[0]))[:8]
    facts = (
        f"{census.files:,} files   ·   {census.lines:,} lines   ·   {census.functions:,} functions   ·   "
        f"{census.classes:,} classes   ·   {len(census.problems)} files not measured"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text(left, 50, title, 24, weight="700"),
        text(left, 78, facts, 14, MUTED),
        f'<line x1="{left}" y1="98" x2="{width - left}" y2="98" stroke="{GRID}" stroke-width="1.5"/>',
        *horizontal_bars(left, 130, panel, "Lines per package", packages, BLUE),
        *histogram(right, 130, panel, 230, "Functions by cyclomatic complexity", census.complexities),
        *horizontal_bars(right, 396, panel, "Files that import a module", modules, BLUE),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# ---- The program -------------------------------------------------------------------------------------------------


def source_files(root: Path, limit: int | None) -> list:
    """(size, path relative to root) of all Python files, without packages that were installed later."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - {"__pycache__", "site-packages", "dist-packages"})
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                found.append((path.stat().st_size, path.relative_to(root).as_posix()))
    return found[:limit]


def in_batches(files: list, count: int) -> list:
    """Batches of similar size in bytes; the greatest files are dealt out first, so none comes late and alone."""
    count = max(1, min(count, len(files)))
    dealt = sorted(files, reverse=True)
    return [[path for _, path in dealt[start::count]] for start in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(sysconfig.get_path("stdlib")), help="the folder to count")
    parser.add_argument("--limit", type=int, help="only the first N files")
    parser.add_argument("--cpus", type=int, help="workers to use (default: one per CPU)")
    parser.add_argument("--output", type=Path, default=Path("stdlib_census.svg"), help="the chart (an SVG file)")
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"--root: {options.root} is not a folder")
    if not options.output.absolute().parent.is_dir():
        parser.error(f"--output: {options.output.parent} is not a folder")
    for name in ("limit", "cpus"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    files = source_files(options.root, options.limit)
    if not files:
        parser.error(f"--root: no Python files in {options.root}")

    start = time.monotonic()
    ray.init(num_cpus=options.cpus)
    cpus = int(ray.cluster_resources()["CPU"])
    root = str(options.root.resolve())
    census = ray.get(run_census(root, in_batches(files, cpus * BATCHES_PER_CPU), Progress(len(files))))
    ray.shutdown()
    seconds = time.monotonic() - start

    version = ".".join(map(str, sys.version_info[:3]))
    standard = options.root == Path(sysconfig.get_path("stdlib"))
    title = f"The standard library of Python {version}" if standard else f"Python files in {options.root}"
    options.output.write_text(chart(census, title), encoding="utf-8")
    print(f"\n{title}\n")
    totals = (census.files, census.lines, census.functions, census.classes, len(census.problems))
    print(table("In all", ("files", "lines", "functions", "classes", "not measured"), [totals]))
    print("\n" + report(census))
    print(f"\n{len(files):,} files in {seconds:.1f} s on {cpus} CPUs. Chart: {options.output}")


if __name__ == "__main__":
    main()
