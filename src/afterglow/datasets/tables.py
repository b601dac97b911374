"""Tables that users write: JSON lines, CSV, Parquet and plain text."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from afterglow.errors import AfterglowError, reading, shown
from afterglow.files import numbered_json_lines, place, read_text


def read_table(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read a table; lines end at newlines only, and a byte-order mark is skipped.

    Args:
        path: .jsonl (an object per line), .csv (columns separated by ';' or ',', as in its header), .txt (a caption per line) or .parquet.

    Returns:
        Number of the line (of the row for .parquet) and {column: value}, for each row that is not blank.

    Raises:
        AfterglowError: if the file is not UTF-8 or a line cannot be parsed; it names file and line.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return list(numbered_json_lines(path))
    return list(_csv(path) if path.suffix == ".csv" else _txt(path))


def checked_text(value: Any, column: str, where: str) -> str:
    """Return a value of a column; raises AfterglowError that names `where` if it is not text that can be stored."""
    if not isinstance(value, str):
        raise AfterglowError(f"{where}: the {column} is {shown(value)}, not text.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise AfterglowError(f"{where}: the {column} contains a NUL character or half of a surrogate pair: {shown(ascii(value))}.")
    return value


def file_inside(folder: Path, name: str, column: str, where: str) -> Path:
    """Return a file that a table names; tables may come from others, so it must lie in the table's folder, links included.

    Args:
        folder: folder of the table.
        name: path relative to it.
        column: column of the table, for messages.
        where: file and line, for messages.

    Raises:
        AfterglowError: if the file lies outside or is missing.
    """
    file = folder / name
    try:
        inside, exists = file.resolve().is_relative_to(folder.resolve()), file.is_file()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, a loop of links, a NUL
        inside, exists = True, False
    if not inside:
        raise AfterglowError(f"{where}: its {column} '{shown(name, 80)}' lies outside the folder of this file.")
    if not exists:
        raise AfterglowError(f"{where}: its {column} '{shown(name, 80)}' is missing.")
    return file


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = read_text(path)
    header = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline="\n"), delimiter=";" if header.count(";") >= header.count(",") else ",", strict=True)
    csv.field_size_limit(sys.maxsize)  # it counts characters; the default is 131,072
    columns: list[str] = []
    try:
        for cells in lines:
            if not any(cells):
                continue
            if not columns:
                columns = cells
                if len(set(columns)) < len(columns):
                    raise AfterglowError(f"{place(path, lines.line_num)}: two columns have the same name.")
            elif len(cells) != len(columns):
                raise AfterglowError(
                    f"{place(path, lines.line_num)}: {len(cells)} values for the {len(columns)} columns of the header; a value that "
                    "contains the separator must be in quotation marks."
                )
            else:
                yield lines.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise AfterglowError(f"{place(path, lines.line_num)}: this is not CSV ({error}).") from error


def _txt(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = (line.removesuffix("\r") for line in read_text(path).split("\n"))
    return ((number, {"caption": line}) for number, line in enumerate(lines, start=1) if line.strip())


def _parquet(path: Path) -> list[tuple[int, dict[str, Any]]]:
    with reading(path):
        table = pd.read_parquet(path)
    return list(enumerate(table.astype(object).where(table.notna(), None).to_dict("records"), start=1))
