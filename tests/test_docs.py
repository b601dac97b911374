"""README and docs/: links resolve, notebooks run, commands exist. `make docs` builds the site; .ci/run calls it, pytest does not."""

import re
import unicodedata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)(?: *\{#([\w-]+)\})?$", re.MULTILINE)
ANCHOR = re.compile(r"\{#([\w-]+)\}")
SHELL_LANGUAGES = ("", "shell", "bash", "sh")
SEPARATORS = (";", "&&", "||", "|", "do", "done", "then")


# Links


def slugify(title: str) -> str:
    """The id of a heading, as Python-Markdown makes it."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_title).strip().lower())


def anchors(page: Path) -> set[str]:
    """Ids of the headings of a page, as MkDocs and GitHub make them, and ids that the page gives."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title) for title, _ in HEADING.findall(text)]
    return {slugify(title) for title in plain} | set(ANCHOR.findall(text))


def target_file(page: Path, path: str) -> Path:
    """The file that a relative link means; a page that is made from a notebook stands for the notebook."""
    target = (page.parent / path).resolve() if path else page
    notebook = target.with_suffix(".ipynb")
    return notebook if target.suffix == ".md" and not target.exists() and notebook.exists() else target


def broken_links(page: Path) -> list[str]:
    """Internal links of a page whose file or anchor does not exist."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = target_file(page, path)
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading\n\n## Given {#own}\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#a-heading) [b](other.md#own) [c](other.md#gone) [d](gone.md) [e](#here)\n")
    assert broken_links(page) == ["other.md#gone", "gone.md", "#here"]


def test_docstrings_link_to_anchors_that_exist() -> None:
    known = anchors(ROOT / "docs" / "methods.md")
    cited = {
        (source.name, anchor)
        for source in (ROOT / "src").rglob("*.py")
        for anchor in re.findall(r"docs/methods\.md#([\w-]+)", source.read_text(encoding="utf-8"))
    }
    assert {(name, anchor) for name, anchor in cited if anchor not in known} == set()


# Notebooks


def test_notebooks_run_on_the_fast_recipe(tmp_path: Path) -> None:
    """Both in one folder, so that the second reads the run that the first trains."""
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(notebook, as_version=4)
        NotebookClient(cells, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "first" / "measurements.parquet").is_file()


def test_notebooks_store_no_outputs() -> None:
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in nbformat.read(notebook, as_version=4).cells), notebook.name
