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
NO_ANSWER = {
    "photographs": "E1, whether a region of a photograph is memorized later than the whole photograph, is not measured yet",
}
# the plan's change of 2026-11-28
CELEBA = "; of CelebA two seeds were planned, which decided nothing, and the third was added after their result"
INTRODUCTION = """# Findings

Each finding is a page of tables, figures and conclusions. The page names the command that made it, and its data is committed beside it. `python docs/findings/make.py` writes this front page from those pages. Images have 16 pixels a side and networks about a million parameters unless an answer says otherwise; intervals are explained on the pages. The [plan](plan.md) states question, primary quantity and rule of the experiments E1 to E7 before they are evaluated."""


def read(folder: Path, name: str) -> str:
    """The text of a page; empty if it does not exist."""
    page = folder / f"{name}.md"
    return page.read_text(encoding="utf-8") if page.is_file() else ""


def conclusion(text: str, number: int, sentences: int = 1) -> str:
    """The first sentences of a numbered conclusion of a page."""
    found = re.search(rf"^{number}\. (.+)$", text.partition("## Conclusions")[2], re.MULTILINE)
    assert found is not None
    return " ".join(re.split(r"(?<=[.;]) (?=[A-Z])", found[1])[:sentences])


def by_section(text: str, start: str) -> str:
    """'CIFAR-10: ...; CelebA: ...': of each section of a page the first sentence that begins with a pattern."""
    parts = []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        if found := re.search(rf"^({start}.*?)\.(?: |$)(?!\d)", body, re.MULTILINE):
            parts.append(f"{title.strip()}: {found[1]}")
    return "; ".join(parts)


def measured(folder: Path, name: str) -> str:
    """The answer of a page's own script."""
    answer = runpy.run_path(str(HERE / name / "make.py"))["answer"](folder / name)
    return str(answer).removesuffix(".")


def answers(folder: Path) -> Iterator[str]:
    """Ten answers."""
    emergence, localization = read(folder, "emergence"), read(folder, "localization")
    yield f"On OpenMoji, by the calibrated distance (rows of d1/d2 were not kept): {conclusion(emergence, 3)}"
    photographs = by_section(read(folder, "photographs"), "(?:Local plants are|Difference)")
    yield f"Photographs, a region against the whole: {photographs}{CELEBA}." if photographs else f"{NO_ANSWER['photographs']}."
    yield conclusion(emergence, 1, 2)
    yield f"{measured(folder, 'photograph_sizes')}."
    yield f"{measured(folder, 'backgrounds')}."
    yield f"{measured(folder, 'endings')}."
    yield f"{measured(folder, 'small_sd')}."
    yield f"Maps: {conclusion(localization, 4, 2)} Detectors: {conclusion(localization, 8, 2)}"
    yield f"{measured(folder, 'unconditional')}."
    yield f"Mitigations at inference: {conclusion(read(folder, 'mitigation'), 2)}"


def page(folder: Path = HERE) -> str:
    """Markdown of the front page."""
    lines = [f"{number}. {text}" for number, text in enumerate(answers(folder), start=1)]
    table = [f"| {question} | [{name}.md]({name}.md) |" for name, question in PAGES.items() if read(folder, name)]
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
