"""Pages that MkDocs makes at build time: the help of every command, the notebooks as Markdown, CONTRIBUTING.md."""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent


def notebook_markdown(notebook: Path) -> str:
    """Return the cells of a notebook as Markdown. Outputs are not part of the site; the notebook is offered for download."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```" for cell in cells]
    return "\n\n".join([*parts, f"[Download this notebook]({notebook.name})"]) + "\n"


def contributing_markdown() -> str:
    """Return CONTRIBUTING.md with its links to docs/ made relative to the site."""
    return (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no Markdown file under docs/."""
    pages = {f"notebooks/{notebook.stem}.md": notebook_markdown(notebook) for notebook in sorted((DOCS / "notebooks").glob("*.ipynb"))}
    for path, content in {**pages, "contributing.md": contributing_markdown()}.items():
        files.append(File.generated(config, path, content=content))
    return files
