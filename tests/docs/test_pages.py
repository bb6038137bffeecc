"""The pages: their links lead somewhere, and their code is that of the examples."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_the_code_in_the_readme_is_that_of_the_example():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    assert block[1] in (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")


def test_the_readme_has_one_command_that_runs_the_main_job_and_one_that_tests():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    run, test = re.findall(r"^    (python3 .*)$", readme, re.MULTILINE)[:2]
    assert run.endswith("examples/stdlib_census.py")
    assert test.endswith("pytest")
