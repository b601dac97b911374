"""The dependency law between the packages of src/afterglow, and proofs that each check can fail.

Each `..._faults` reads source files without importing them and returns one sentence per fault.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/afterglow"

LEAVES = {
    "attention_names",
    "deferred",
    "distributed",
    "errors",
    "files",
    "cache",
    "kinds",
    "keys",
    "memory",
    "signals",
}  # import nothing of ours; may be imported everywhere
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    **{leaf: set() for leaf in LEAVES},
    "functional": set(),
    "generations": set(),
    "loggers": set(),
    "neighbors": {"functional"},
    "datasets": {"functional", "neighbors"},
    "planting": {"functional", "neighbors", "datasets"},
    "measures": {"functional", "generations"},
    "models": {"functional", "neighbors", "planting"},
    "sampling": {"functional", "generations", "models", "planting"},
    "analysis": {"functional", "generations", "measures"},
    "testing": {"functional", "models"},
}
MAY_IMPORT["mitigations"] = {"functional", "generations", "measures", "models", "sampling", "analysis", "planting"}
MAY_IMPORT["evaluation"] = MAY_IMPORT["mitigations"] | {"neighbors", "datasets"}
MAY_IMPORT["reports"] = {"functional", "generations", "measures", "analysis"}
MAY_IMPORT["callbacks"] = MAY_IMPORT["evaluation"] | {"evaluation", "loggers"}
MAY_IMPORT["cli"] = set(MAY_IMPORT) - {"__main__"}
COMMANDS = ("train.py", "train", "analysis", "benchmarks")  # commands; they use src, and nothing uses them
SHARED = {"folders.py", "verdicts.py", "networks.py", "timing.py"}  # what the benchmarks share; no command
PROCESS_VARIABLE = re.compile(r"(^|_)(RANK|WORLD_SIZE|MASTER_(ADDR|PORT))$")  # environment variables of the launcher


def package_of(file: Path, source: Path) -> str:
    return file.relative_to(source).parts[0].removesuffix(".py")


def imported(file: Path, package: tuple[str, ...] = ()) -> Iterator[str]:
    """Full dotted name of everything that `file`, a module of `package`, imports anywhere in its text."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = node.module.split(".") if node.module else []
            yield from (".".join([*start, *module, alias.name]) for alias in node.names)


def modules(source: Path) -> Iterator[tuple[Path, list[list[str]]]]:
    """(file, the parts of each name it imports) of every file of the package."""
    for file in sorted(source.rglob("*.py")):
        package = (source.name, *file.relative_to(source).parts[:-1])
        yield file, [name.split(".") for name in imported(file, package)]


def package_faults(source: Path) -> list[str]:
    faults = []
    for file, names in modules(source):
        package, packages = package_of(file, source), {parts[1] for parts in names if parts[0] == source.name and len(parts) > 1}
        if package not in MAY_IMPORT:
            faults.append(f"{file.name}: the law knows no package {package}")
        else:
            known = packages & set(MAY_IMPORT) - {package}  # the rest are names of the package itself, such as __version__
            faults += [f"{file.name}: {package} may not import {other}" for other in sorted(known - MAY_IMPORT[package] - LEAVES)]
    return faults


def wandb_faults(source: Path) -> list[str]:
    outside = [(file, names) for file, names in modules(source) if package_of(file, source) != "loggers"]
    return [
        f"{file.name}: only loggers imports wandb"
        for file, names in outside
        if any(part.startswith("wandb") for parts in names for part in parts)
    ]


def words(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every name, attribute, argument, keyword, import and string in the code; comments and docstrings are not code."""
    tree = ast.parse(file.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        texts = (
            getattr(node, field, None) for field in ("id", "attr", "arg", "name", "asname", "module", "value") if id(node) not in prose
        )
        yield from ((getattr(node, "lineno", 0), text) for text in texts if isinstance(text, str))


def launcher_faults(source: Path) -> list[str]:
    files = [file for file in sorted(source.rglob("*.py")) if file != source / "distributed.py"]
    return [
        f"{file.name}:{line}: {text!r} is read in distributed.py alone"
        for file in files
        for line, text in words(file)
        if PROCESS_VARIABLE.search(text)
    ]


def command_faults(root: Path) -> list[str]:
    """Commands that import anything of ours but the package, and modules of the package that import a command."""
    commands = [
        file
        for door in COMMANDS
        for file in ([root / door] if door.endswith(".py") else sorted((root / door).rglob("*.py")))
        if file.exists() and file.name not in SHARED
    ]
    forbidden = {file.stem for file in commands} | {"train", "analysis", "benchmarks", "tests"}
    inside = [(file, names) for source in sorted((root / "src").glob("*/")) for file, names in modules(source)]
    everyone = inside + [(file, [name.split(".") for name in imported(file)]) for file in commands]
    return [f"{file.name}: imports {parts[0]}, a command" for file, names in everyone for parts in names if parts[0] in forbidden]


def mirror_faults(source: Path, tests: Path) -> list[str]:
    files = [file.relative_to(source) for file in sorted(source.rglob("*.py")) if file.name != "__init__.py"]
    return [f"{file} has no {twin}" for file in files if not (tests / (twin := file.with_name(f"test_{file.name}"))).exists()]


def test_packages_depend_one_way() -> None:
    assert package_faults(SOURCE) == []


def test_only_loggers_imports_wandb() -> None:
    assert wandb_faults(SOURCE) == []


def test_only_distributed_reads_the_launcher() -> None:
    assert launcher_faults(SOURCE) == []


def test_commands_use_the_package_and_nothing_uses_them() -> None:
    assert command_faults(ROOT) == []


def test_every_source_file_has_its_test_file() -> None:
    assert mirror_faults(SOURCE, ROOT / "tests") == []


def test_the_law_has_no_cycle() -> None:
    reached: set[str] = set()
    while ready := {package for package, others in MAY_IMPORT.items() if package not in reached and others - {package} <= reached}:
        reached |= ready
    assert reached == set(MAY_IMPORT)


# The twins: each law, broken.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    package = tmp_path / "src/afterglow"
    (package / "measures").mkdir(parents=True)
    (package / "measures/__init__.py").write_text("")
    return package


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "line",
    [
        "import afterglow.models.ddpm",
        "from afterglow.models import ddpm",
        "from afterglow import models",
        "from ..models.ddpm import DDPM",
        "from .. import models",
        "def late():\n    import afterglow.models",
    ],
)
def test_a_wrong_way_is_reported(source: Path, line: str) -> None:
    write(source / "measures/entropy.py", line)
    assert package_faults(source) == ["entropy.py: measures may not import models"]


def test_right_ways_and_neighbors_in_the_package_are_not_reported(source: Path) -> None:
    write(
        source / "measures/entropy.py",
        "import torch\nimport afterglow\nfrom afterglow.generations import Generations\nfrom . import maps\nfrom .maps import x",
    )
    assert package_faults(source) == []


def test_a_package_that_the_law_does_not_know_is_reported(source: Path) -> None:
    write(source / "misc.py", "")
    assert package_faults(source) == ["misc.py: the law knows no package misc"]


@pytest.mark.parametrize(
    "line", ["import wandb", "from wandb.sdk import x", "import wandb_workspaces.reports", "from lightning.pytorch.loggers import wandb"]
)
def test_wandb_elsewhere_is_reported(source: Path, line: str) -> None:
    write(source / "loggers/tables.py", line)
    assert wandb_faults(source) == []
    write(source / "measures/entropy.py", line)
    assert wandb_faults(source) == ["entropy.py: only loggers imports wandb"]


@pytest.mark.parametrize(
    "line",
    [
        "os.environ['LOCAL_RANK']",
        "os.environ.get('RANK', 0)",
        "os.getenv('WORLD_SIZE')",
        "from x import MASTER_PORT",
    ],
)
def test_a_launcher_variable_read_elsewhere_is_reported(source: Path, line: str) -> None:
    write(source / "distributed.py", line)
    assert launcher_faults(source) == []
    write(source / "measures/entropy.py", line)
    assert len(launcher_faults(source)) == 1


def test_prose_and_longer_words_are_not_reported(source: Path) -> None:
    write(
        source / "measures/entropy.py",
        '"""Every rank."""\n# WORLD_SIZE\ndef franklin():\n    """The rank."""\n    ranks = argsort(rank, world_size)'
        "\n    return rankdata(cranky, ranks)",
    )
    assert launcher_faults(source) == []


def test_a_command_imported_is_reported(source: Path) -> None:
    root = source.parents[1]
    write(root / "train.py", "from afterglow.cli import main")
    write(root / "analysis/detect.py", "import torch\nfrom afterglow import report")
    assert command_faults(root) == []
    write(root / "analysis/localize.py", "from detect import roc")
    write(root / "benchmarks/speed.py", "from .localize import roc")
    write(source / "measures/entropy.py", "import train")
    assert command_faults(root) == [
        "entropy.py: imports train, a command",
        "localize.py: imports detect, a command",
        "speed.py: imports localize, a command",
    ]


def test_a_source_file_without_a_test_is_reported(source: Path) -> None:
    write(source / "measures/entropy.py", "")
    write(source / "cli.py", "")
    write(source.parent / "tests/test_cli.py", "")
    assert mirror_faults(source, source.parent / "tests") == ["measures/entropy.py has no measures/test_entropy.py"]
