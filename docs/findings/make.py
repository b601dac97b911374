"""Write docs/findings/index.md, the front page of the findings, from the pages and the committed rows.

  python docs/findings/make.py

Each answer is taken from a page, so that the two cannot disagree; a page that does not exist yet has no answer.
"""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PAGES = {
    "demo": "Does the demo memorize its plants in every seed?",
    "emergence": "When does memorization emerge, and does local come before global?",
    "photographs": "Is a region of a photograph memorized later than the whole photograph?",
    "photograph_sizes": "How does the onset of copying depend on the number of photographs?",
    "backgrounds": "How does the number of backgrounds move the emergence of a local plant?",
    "endings": "For which text encoder does the ending brighten?",
    "small_sd": "Does the ending brighten in Stable Diffusion's structure?",
    "localization": "Which maps find the planted region, and which scores detect it?",
    "unconditional": "Are local plants memorized by a model without captions?",
    "mitigation": "Which mitigation removes what, and at which cost?",
}
COVERAGE = "| Are images with few neighbors memorized first? | [bench.md](../bench.md#coverage) |"
DATASETS = {"CIFAR-10": "CIFAR-10", "CelebA": "CelebA", "Oxford Flowers 102": "Oxford Flowers"}
ORDER = r"Local plants are (memorized later than|memorized earlier than|not distinguishable in time from) .*?a factor of ([\d.]+ \[.*?\])"
GROWTH = r"n\^a with a = (\S+ \[.*?\])\. (This departs from|It is not distinguishable from) the linear growth"
INTRODUCTION = """# Findings

Each finding is a page of tables, figures and conclusions. The page names the command that made it, and its data is committed beside it. `python docs/findings/make.py` writes this front page from those pages. Images have 16 pixels a side and networks about a million parameters unless an answer says otherwise. [Concepts](../concepts.md) defines plants, phantoms, tints and d1/d2. A copy is a generation with a calibrated distance below 1 unless an answer names d1/d2. Brackets hold 95 % intervals, which the pages explain. The [plan](plan.md) states question, primary quantity and rule of the experiments E1 to E7 before they are evaluated."""


def read(folder: Path, name: str) -> str:
    """The text of a page; empty if it does not exist."""
    page = folder / f"{name}.md"
    return page.read_text(encoding="utf-8") if page.is_file() else ""


def conclusion(text: str, number: int, sentences: int = 1) -> str:
    """The first sentences of a numbered conclusion of a page."""
    found = re.search(rf"^{number}\. (.+)$", text.partition("## Conclusions")[2], re.MULTILINE)
    assert found is not None
    return " ".join(re.split(r"(?<=[.;]) (?=[A-Z])", found[1])[:sentences])


def order(text: str) -> tuple[str, str] | None:
    """How local plants stand to global ones, and the factor, of the first sentence that says so; None if a text has none."""
    found = re.search(ORDER, text)
    return (found[1], found[2]) if found else None


def photographs(text: str) -> str:
    """The order on each set of photographs; the sections of the page are the sets."""
    sections = {title: body for title, _, body in (section.partition("\n") for section in text.split("\n## ")[1:])}
    orders = {name: order(sections.get(title, "").partition("|")[0]) for title, name in DATASETS.items()}
    known: dict[str, list[str]] = {}
    for name, found in orders.items():
        words, factor = found or ("not compared with", "")
        known.setdefault(words, []).append(f"{name} ({factor})" if factor else name)
    parts = [
        f"{words} global plants on {' and '.join([', '.join(sets[:-1]), sets[-1]] if len(sets) > 1 else sets)}"
        for words, sets in known.items()
    ]
    return f"In photographs, local plants are {'; '.join(parts)}, by the factors in brackets."


def without_brackets(text: str) -> str:
    """A sentence without its remarks in parentheses."""
    return re.sub(r" \([^()]*\)", "", text)


def measured(folder: Path, name: str) -> str:
    """The answer of a page's own script."""
    answer = runpy.run_path(str(HERE / name / "make.py"))["answer"](folder / name)
    return str(answer).removesuffix(".")


def linear_text(exponent: str, verdict: str) -> str:
    """How an exponent '0.68 [-0.07, 1.43]' stands to proportional growth, and to none if its interval holds 0."""
    low = float(exponent.partition("[")[2].partition(",")[0])
    if verdict.startswith("This"):
        return "which departs from proportional growth"
    return f"which is not distinguishable from proportional growth{'' if low > 0 else ', nor from none'}"


def answers(folder: Path) -> Iterator[str]:
    """Ten answers."""
    emergence = read(folder, "emergence")
    found, growth = order(conclusion(emergence, 3)), re.search(GROWTH, conclusion(emergence, 1, 2))
    assert found is not None and growth is not None
    yield f"On OpenMoji, local plants are {found[0]} the same images planted whole, by a factor of {found[1]} in training steps."
    yield photographs(read(folder, "photographs"))
    yield f"Without plants and captions, the step at which copying of OpenMoji begins by d1/d2 grows with the number of images n as n^a with a = {growth[1]}, {linear_text(*growth.groups())}."
    yield f"{measured(folder, 'photograph_sizes')}."
    yield f"{measured(folder, 'backgrounds')}."
    yield f"{measured(folder, 'endings')}."
    yield f"{measured(folder, 'small_sd')}."
    yield f"{measured(folder, 'localization')}."
    yield f"{measured(folder, 'unconditional')}."
    mitigation = without_brackets(conclusion(read(folder, "mitigation"), 2)).partition(". ")[0].removesuffix(".")
    yield f"Of the mitigations at inference on OpenMoji, a few remove most copies: {mitigation[0].lower()}{mitigation[1:]}."


def page(folder: Path = HERE) -> str:
    """Markdown of the front page."""
    lines = [f"{number}. {text}" for number, text in enumerate(answers(folder), start=1)]
    table = [f"| {question} | [{name}.md]({name}.md) |" for name, question in PAGES.items() if read(folder, name)]
    table.append(COVERAGE)
    return (
        "\n\n".join([INTRODUCTION, "## Answers", "\n".join(lines), "## Pages", "\n".join(["| question | page |", "|---|---|", *table])])
        + "\n"
    )


def main() -> None:
    """Write the front page."""
    (HERE / "index.md").write_text(page(), encoding="utf-8")
    print(HERE / "index.md")


if __name__ == "__main__":
    main()
