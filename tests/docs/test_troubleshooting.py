"""The pages about errors: what they quote really occurs."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
FOREIGN = {"assignment destination is read-only": "numpy's text."}
TEXTS = runpy.run_path(str(DOCS / "generate_error_texts.py"))
FOUND = TEXTS["templates"]()


def quoted(heading: str) -> list[str]:
    texts = re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", heading)
    assert texts, heading
    return [text for _, text in texts]


@pytest.mark.parametrize("heading", HEADINGS)
def test_each_heading_is_a_text_of_the_sources(heading):
    for text in quoted(heading):
        if text in FOREIGN:
            assert FOREIGN[text] in PAGE
        else:
            assert TEXTS["occurs"](text, FOUND), f"no text in miniray/ has: {text}"


def test_no_text_is_explained_twice():
    assert len(HEADINGS) == len(set(HEADINGS))


def test_a_text_that_does_not_occur_is_noticed():
    assert not TEXTS["occurs"]("The flux ... is not aligned", FOUND)


def test_parts_are_found_in_their_order_only():
    assert TEXTS["occurs"]("The ... is too large", {"The ... ... is too large (... MiB)"})
    assert not TEXTS["occurs"]("large ... is too", {"The ... is too large"})
