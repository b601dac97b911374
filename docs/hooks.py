"""Pages that MkDocs makes at build time: the help of every command, the notebooks as Markdown, CONTRIBUTING.md."""

import json
import os
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from afterglow.cli import COMMANDS
from afterglow.cli.parser import CommandParser

DOCS = Path(__file__).parent
YAML_COMMANDS = ("train", "plant")  # their keys are in reference/configuration.md


def notebook_markdown(notebook: Path) -> str:
    """Return the cells of a notebook as Markdown. Outputs are not part of the site; the notebook is offered for download."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```" for cell in cells]
    return "\n\n".join([*parts, f"[Download this notebook]({notebook.name})"]) + "\n"


def contributing_markdown() -> str:
    """Return CONTRIBUTING.md with its links to docs/ made relative to the site."""
    return (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of findings that nav does not list: a page exists as soon as its first run is committed."""
    listed = next(section["Findings"] for section in config.nav or [] if isinstance(section, dict) and "Findings" in section)
    pages = sorted(f"findings/{page.name}" for page in (DOCS / "findings").glob("*.md"))
    listed += [page for page in pages if page not in listed]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no Markdown file under docs/."""
    pages = {f"notebooks/{notebook.stem}.md": notebook_markdown(notebook) for notebook in sorted((DOCS / "notebooks").glob("*.ipynb"))}
    for path, content in {**pages, "contributing.md": contributing_markdown()}.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands_markdown() -> str:
    """Return one section for each command with its complete --help."""
    os.environ["COLUMNS"] = "110"  # width of the help
    sections = []
    for name, summary in COMMANDS.items():
        module = None if name in YAML_COMMANDS else import_module(f"afterglow.cli.{name.replace('-', '_')}")
        text = f"{summary[0].upper()}{summary[1:]}."
        if module is None:
            text += " Its options are the keys of the [configuration](configuration.md)."
        else:
            parser = CommandParser(prog=f"afterglow {name}", description=module.__doc__)
            module.add_arguments(parser)
            text += f"\n\n```text\n{parser.format_help()}```"
        sections.append(f"## afterglow {name} {{#{name}}}\n\n{text}")
    return "\n\n".join(sections)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the help of all commands to the page of the commands."""
    return f"{markdown}\n{commands_markdown()}\n" if page.file.src_uri == "reference/cli.md" else markdown
