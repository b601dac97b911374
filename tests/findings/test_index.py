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


def test_sections_give_one_verdict_each(make) -> None:
    measured = "## CIFAR-10\n\n3 runs.\n\nDifference +0.31 (factor 1.36). More.\n\n## CelebA\n\n0 runs.\n\n"
    text = f"# T\n\n{measured}## Flowers\n\nLocal plants are late. No.\n"
    found = make.by_section(text, "(?:Local plants are|Difference)")
    assert found == "CIFAR-10: Difference +0.31 (factor 1.36); Flowers: Local plants are late"
