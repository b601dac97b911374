"""One name, one meaning; one text, one place: checks of all of src/afterglow, and proofs that each can fail.

Each `..._faults` reads source files without importing them and returns one sentence per fault.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/afterglow"

ALLOWED = {"log", "main", "run", "add_arguments", "__all__", "__getattr__"}  # one per module by convention
MAX_EQUAL_LINES = 10
ADAPTER = ["functional", "measures"]  # a measure may have the name of the formula that it applies to generations


def defined_names(file: Path) -> Iterator[str]:
    """Functions, classes and constants that a module defines at its top level; private names included."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store))


def name_faults(source: Path) -> list[str]:
    """Public names that two modules define. Private names belong to their module and are not compared."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in sorted(source.rglob("*.py")):
        for name in dict.fromkeys(defined_names(file)):
            files[name].append(str(file.relative_to(source)))
    return [
        f"{name}: {', '.join(places)}"
        for name, places in files.items()
        if len(places) > 1 and not name.startswith("_") and name not in ALLOWED and [Path(p).parts[0] for p in places] != ADAPTER
    ]


def code_lines(file: Path) -> list[tuple[int, str]]:
    """(line number, text without indentation) of the lines that are not blank; imports are not compared."""
    lines = file.read_text().splitlines()
    imports = {
        number
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [(number, text.strip()) for number, text in enumerate(lines, 1) if text.strip() and number not in imports]


def copy_faults(source: Path) -> list[str]:
    """Places that share more than MAX_EQUAL_LINES consecutive lines, each reported once where the equal text begins."""
    first: dict[tuple[str, ...], tuple[str, int]] = {}
    faults, end = [], ("", 0)
    for file in sorted(source.rglob("*.py")):
        lines, name = code_lines(file), str(file.relative_to(source))
        for start in range(len(lines) - MAX_EQUAL_LINES):
            window = tuple(text for _, text in lines[start : start + MAX_EQUAL_LINES + 1])
            place = (name, lines[start][0])
            other = first.setdefault(window, place)
            if other == place:
                continue
            if end != (name, start):  # the previous window did not report the same text
                faults.append(f"{name}:{place[1]} repeats {other[0]}:{other[1]}")
            end = (name, start + 1)
    return faults


def test_no_public_name_is_defined_twice() -> None:
    assert name_faults(SOURCE) == []


def test_no_two_places_share_more_than_ten_lines() -> None:
    assert copy_faults(SOURCE) == []


# The proofs: each check, broken.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "measures").mkdir()
    return tmp_path


@pytest.mark.parametrize("text", ["def judge(): ...", "class judge: ...", "judge = 1", "judge: int = 1", "x, judge = 1, 2"])
def test_a_name_defined_in_two_files_is_reported(source: Path, text: str) -> None:
    (source / "a.py").write_text("def judge(): ...\nlog = 1\n_private = 2")
    (source / "measures/b.py").write_text("from a import other\nlog = 2\n_private = 3\ndef f(judge):\n    other = judge")
    assert name_faults(source) == []
    (source / "measures/b.py").write_text(text)
    assert name_faults(source) == ["judge: a.py, measures/b.py"]


def test_a_measure_may_have_the_name_of_its_formula(source: Path) -> None:
    (source / "functional").mkdir()
    (source / "functional/a.py").write_text("def nn_ratio(): ...")
    (source / "measures/b.py").write_text("def nn_ratio(): ...")
    assert name_faults(source) == []
    (source / "measures/c.py").write_text("def nn_ratio(): ...")
    assert len(name_faults(source)) == 1


@pytest.mark.parametrize(("count", "reported"), [(MAX_EQUAL_LINES, False), (MAX_EQUAL_LINES + 1, True), (MAX_EQUAL_LINES + 5, True)])
def test_equal_lines_are_reported_from_eleven_on(source: Path, count: int, reported: bool) -> None:
    text = [f"x{number} = {number}" for number in range(count)]
    (source / "a.py").write_text("\n".join(["import json", *text, "y = 1"]))
    (source / "measures/b.py").write_text("\n\n".join(["def f():", *(f"    {line}" for line in text), "    z = 2"]))
    assert copy_faults(source) == (["measures/b.py:3 repeats a.py:2"] if reported else [])


def test_equal_lines_in_one_file_are_reported(source: Path) -> None:
    text = "\n".join(f"call({number})" for number in range(MAX_EQUAL_LINES + 1))
    (source / "a.py").write_text(f"{text}\nother()\n{text}")
    assert copy_faults(source) == ["a.py:13 repeats a.py:1"]


def test_equal_imports_are_not_reported(source: Path) -> None:
    text = "\n".join(f"import module{number}" for number in range(20))
    (source / "a.py").write_text(text)
    (source / "measures/b.py").write_text(text)
    assert copy_faults(source) == []
