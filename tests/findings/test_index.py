"""The front page follows from the pages, and its excerpts are those that the pages' texts hold."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(FINDINGS / "make.py")))


def test_page_equals_the_committed_page_and_has_ten_answers(make) -> None:
    page = make.page()
    assert page == (FINDINGS / "index.md").read_text(encoding="utf-8")
    assert "\n10. " in page and "\n11. " not in page
    assert set(make.PAGES) >= {path.stem for path in FINDINGS.glob("*.md")} - {"index", "plan"}


def test_conclusions_are_cut_between_sentences(make) -> None:
    text = "1. Not here.\n## Conclusions\n\n1. Slope 0.42 of `a.b`. It holds. Not this.\n10. Ten.\n"
    assert make.conclusion(text, 1) == "Slope 0.42 of `a.b`." and make.conclusion(text, 1, 2) == "Slope 0.42 of `a.b`. It holds."
    assert make.conclusion(text, 10) == "Ten."


def test_photographs_are_grouped_by_what_their_sections_say(make) -> None:
    late = "Local plants are memorized later than global ones: difference +0.3, a factor of 1.41 [1.27, 1.55]; seeds +0.3. More."
    equal = "Local plants are not distinguishable in time from global ones: difference -0.1, a factor of 0.90 [0.27, 1.55]; seeds -0.1."
    text = (
        f"# T\n\n## CIFAR-10\n\n{late}\n\n| a |\n\n## CelebA\n\n{late}\n\n## Oxford Flowers 102\n\n{equal}\n\n## At 32 pixels\n\n{late}\n"
    )
    said = make.photographs(text)
    assert "memorized later than global plants on CIFAR-10 (1.41 [1.27, 1.55]) and CelebA (1.41 [1.27, 1.55])" in said
    assert "not distinguishable in time from global plants on Oxford Flowers (0.90 [0.27, 1.55])" in said
    assert "not compared with global plants on CelebA and Oxford Flowers" in make.photographs(
        text.replace("## CelebA", "## X").partition("## Oxf")[0]
    )


def test_remarks_in_parentheses_are_left_out(make) -> None:
    assert make.without_brackets("`a 1`, `b` (one schedule; seeds: 2, 0) and `c` (0, 2); 0.5.") == "`a 1`, `b` and `c`; 0.5."
