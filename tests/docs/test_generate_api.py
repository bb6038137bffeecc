"""The API reference is made from the docstrings, and up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def generate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "generate_api.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=50)


def test_the_reference_is_up_to_date():
    done = generate("--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "miniray"
    (root / "processes").mkdir(parents=True)
    (root / "util").mkdir()
    (root / "__init__.py").write_text(
        '"""The package."""\nfrom miniray.processes.driver import get, hidden\n__all__ = ["get", "Ref"]\n'
        "from miniray.refs import ObjectRef as Ref\n"
    )
    (root / "processes" / "__init__.py").write_text("")
    (root / "processes" / "driver.py").write_text(
        'def get(refs: list, *, timeout: float | None = None) -> object:\n    """Wait for values.\n\n    Args:\n'
        "        refs: what to wait for,\n            one or many.\n        timeout: seconds.\n        this,\n"
        "        that: ignored.\n\n    Raises:\n"
        '        GetTimeoutError: the time is up.\n    """\n'
        "def hidden(): pass\n"
    )
    (root / "refs.py").write_text(
        'class ObjectRef:\n    """A name."""\n    def __init__(self, id: bytes) -> None: pass\n'
        '    def hex(self) -> str:\n        """In hex."""\n'
        "    def undocumented(self): pass\n"
    )
    (root / "util" / "__init__.py").write_text('"""Tools."""\ndef bare(x): pass\ndef _private(): pass\n')
    return root


def test_names_are_shown_where_users_import_them_with_what_their_docstrings_say(package, tmp_path):
    target = tmp_path / "api.md"
    assert generate("--root", package, "--output", target).returncode == 0
    text = target.read_text(encoding="utf-8")
    module = text[text.index("## miniray\n") : text.index("## miniray.util")]
    assert "get(refs: list, *, timeout: float | None=None) -> object" in module
    assert "* `refs`: what to wait for,\n  one or many." in module
    assert "* `this, that`: ignored." in module
    assert "* `GetTimeoutError`: the time is up." in module
    assert "### class `Ref`" in module and "\nRef(id: bytes)\n" in module and "* `hex() -> str`: In hex." in module
    assert "undocumented" not in text and "hidden" not in text and "_private" not in text
    assert "miniray.processes" not in text
    assert text.endswith("## Without a docstring\n\n`miniray.util.bare`\n")


def test_a_stale_reference_is_noticed_and_named(package, tmp_path):
    target = tmp_path / "api.md"
    generate("--root", package, "--output", target)
    assert generate("--check", "--root", package, "--output", target).returncode == 0
    target.write_text(target.read_text(encoding="utf-8").replace("seconds", "minutes"), encoding="utf-8")
    done = generate("--check", "--root", package, "--output", target)
    assert done.returncode != 0
    assert "-* `timeout`: minutes." in done.stdout and "out of date" in done.stderr
