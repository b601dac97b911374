"""README and docs/: links resolve, notebooks run, commands exist. `make docs` builds the site; .ci/run calls it, pytest does not."""

import re
import shlex
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from afterglow.cli import COMMANDS, main
from afterglow.cli.parser import CommandParser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)(?: *\{#([\w-]+)\})?$", re.MULTILINE)
ANCHOR = re.compile(r"\{#([\w-]+)\}")
SHELL_LANGUAGES = ("", "shell", "bash", "sh")
RECIPES = ("demo", "openmoji_ddpm", "sd14_memorize")
PLACEHOLDERS = ("RECIPE", "OVERLAY", "configs/NAME.yaml", "configs/overlays/NAME.yaml", "runs/NAME/config.yaml")
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


# Commands


def split_commands(block: str) -> list[tuple[str, ...]]:
    """The simple commands of a shell block: comments, continued lines, separators and loops are resolved."""
    commands = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in SEPARATORS:
                words.append(word)
            elif words:
                commands.append(tuple(words))
                words = []
    return commands


def program_of(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """('train.py' or 'afterglow' or 'make' ..., its arguments); None for a command that is not ours."""
    rest = list(words)
    while rest and re.match(r"^[A-Z_]+=", rest[0]):  # variables in front of a command
        rest.pop(0)
    if rest and rest[0] in ("python", "accelerate", "$LAUNCH", "python3", ".venv/bin/python"):
        script = next((i for i, word in enumerate(rest) if word.endswith(".py")), None)
        return None if script is None else (rest[script], tuple(rest[script + 1 :]))
    return (rest[0], tuple(rest[1:])) if rest and rest[0] in ("afterglow", "make") else None


def commands_of(page: Path) -> list[tuple[str, ...]]:
    """Every command of ours in the shell blocks and in the inline code of a page; variables of the page's own blocks are replaced."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for language, body in FENCE.findall(text) if language in SHELL_LANGUAGES]
    variables = dict(re.findall(r'^([A-Z]+)="([^"]*)"', "\n".join(blocks), re.MULTILINE))
    inline = [code for code in INLINE.findall(FENCE.sub("", text)) if code.split()[0] in ("python", "accelerate", "afterglow", "make")]
    found = []
    for block in [*blocks, *inline]:
        body = re.sub(r"\$([A-Z]+)\b", lambda match: variables.get(match[1], match[0]), block)
        found += [words for words in split_commands(body) if program_of(words)]
    return found


@cache
def train_keys(recipe: str) -> frozenset[str]:
    """The dotted options of a training with one recipe, as --print_config lists them."""
    with pytest.raises(SystemExit), redirect_stdout(StringIO()) as out:
        main(["train", "--config", str(ROOT / recipe), "--print_config"])
    keys: set[str] = set()

    def walk(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = prefix if key in ("init_args", "dict_kwargs") else f"{prefix}{key}"
            keys.add(f"--{name}")
            if isinstance(value, dict):
                walk(value, name if name == prefix else f"{name}.")

    walk(yaml.safe_load(out.getvalue()), "")
    return frozenset(keys)


def train_fault(arguments: tuple[str, ...]) -> str | None:
    """A recipe file or an option of the training that does not exist. Together the three recipes know every option."""
    known = {"--config", "--print_config", "--help", "--out", "--dry-run"}.union(*(train_keys(f"configs/{name}.yaml") for name in RECIPES))
    for word, following in zip(arguments, (*arguments[1:], ""), strict=False):
        if word == "--config" and following not in PLACEHOLDERS and not (ROOT / following).is_file():
            return f"no file {following}"
        option = word.partition("=")[0].removesuffix("+")
        if word.startswith("--") and option not in known and not option.startswith("--mitigations."):  # arguments of the class before
            return f"no option {word}"
    return None


def command_fault(name: str, arguments: tuple[str, ...]) -> str | None:
    """The answer of a command's own parser to arguments that it refuses."""
    if name not in COMMANDS:
        return f"no command {name}"
    module = import_module(f"afterglow.cli.{name.replace('-', '_')}")
    if not hasattr(module, "add_arguments"):  # train and plant: jsonargparse
        return train_fault(arguments)
    if arguments in ((), ("--help",)):  # the text only names the command
        return None
    parser = CommandParser(prog=name)
    module.add_arguments(parser)
    with redirect_stderr(StringIO()) as answer:
        try:
            parser.parse_args(list(arguments))
        except SystemExit:
            return answer.getvalue().strip()
    return None


def fault_of(words: tuple[str, ...]) -> str | None:
    """What is wrong with a command; None if its program exists and accepts its options."""
    program, arguments = program_of(words) or ("", ())
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return next((f"no target {word}" for word in arguments if word not in targets and "=" not in word), None)
    if program == "afterglow":
        return command_fault(arguments[0], arguments[1:]) if arguments and arguments[0] not in ("--help", "COMMAND") else None
    if not (ROOT / program).is_file():
        return f"no file {program}"
    if not program.startswith(("benchmarks/", "docs/", "scripts/")):
        return command_fault(Path(program).stem.replace("_", "-"), arguments)
    source = (ROOT / program).read_text(encoding="utf-8")  # a benchmark imports torch before it parses
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    return next((f"no option {option}" for option in options if not re.search(rf"{option}(?![\w-])", source)), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    faults = {" ".join(words): fault_of(words) for words in commands_of(page)}
    assert {command: fault for command, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("make demoo", "no target demoo"),
        ("python analysis/gone.py", "no file analysis/gone.py"),
        ("afterglow detct measures.parquet", "no command detct"),
        ("afterglow detect measures.parquet --imagess 1", "--imagess"),
        ("afterglow near-duplicates --distance far", "far"),
        ("python benchmarks/storage.py --gone 1", "no option --gone"),
        ("python train.py --model.learning_rat 1", "no option --model.learning_rat"),
        ("accelerate launch --quiet train.py --config configs/gone.yaml", "no file configs/gone.yaml"),
    ],
)
def test_wrong_commands_are_found(command: str, fault: str) -> None:
    (words,) = split_commands(command)
    assert fault in str(fault_of(words))


def test_shell_blocks_are_split_into_commands() -> None:
    block = "A=1 python a.py --x \\\n  'b c'  # why\nfor i in 0 1; do make demo; done\n"
    assert split_commands(block) == [("A=1", "python", "a.py", "--x", "b c"), ("for", "i", "in", "0", "1"), ("make", "demo")]


# Notebooks


IN_THIS_KERNEL = """%reset -f
import runpy, subprocess, sys

def run_here(command, check):
    python, *sys.argv = map(str, command)
    assert python == sys.executable and check
    sys.argv += ["--model.unet.block_out_channels", "[8,16]"]
    runpy.run_path(sys.argv[0], run_name="__main__")

subprocess.run = run_here
"""


def test_notebooks_run_on_the_fast_recipe(tmp_path: Path) -> None:
    """Both in one folder, so that the second reads the run that the first trains, and in one kernel, which imports the libraries once."""
    both = nbformat.v4.new_notebook()
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        both.cells += [nbformat.v4.new_code_cell(IN_THIS_KERNEL), *nbformat.read(notebook, as_version=4).cells]
    NotebookClient(both, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "first" / "measurements.parquet").is_file()


def test_notebooks_store_no_outputs() -> None:
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in nbformat.read(notebook, as_version=4).cells), notebook.name
