"""Reading files that may be damaged, foreign or hostile: each failure is one AfterglowError that names the file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterglow.errors import AfterglowError, reading, shown

if TYPE_CHECKING:
    import pandas as pd

MAX_DEPTH = 50  # nested lists and mappings of a YAML text; recipes have 6
MAX_NODES = 100_000  # values of a YAML text, aliases counted as often as they are used


def read_text(file: Path, content: str = "text in UTF-8") -> str:
    """The text of a UTF-8 file without a byte-order mark; an error names the line."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AfterglowError(f"{place(file, line)}: this is not {content}; save the file as UTF-8.") from error


def place(file: Path, line: int) -> str:
    """A line of a file for messages."""
    return f"'{shown(file, 120)}', line {line}"


def read_json(file: Path) -> Any:
    """The value of a JSON file."""
    with reading(file, "JSON"):
        return json.loads(file.read_text(encoding="utf-8"))


def read_json_lines(file: Path, keys: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The mappings of a JSON Lines file, one per line; each must have the keys."""
    return [row for _, row in numbered_json_lines(file, keys)]


def numbered_json_lines(file: Path, keys: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same with the number of each line; lines end at newlines only, blank ones are skipped."""
    for number, line in enumerate(read_text(file, "JSON Lines in UTF-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError as error:
            raise AfterglowError(f"{place(file, number)}: the brackets are nested too deeply.") from error
        except ValueError as error:
            raise AfterglowError(f"{place(file, number)}: this is not JSON ({shown(error, 80)}).") from error
        if not isinstance(row, dict):
            raise AfterglowError(f'{place(file, number)}: this is not a mapping in JSON, such as {{"caption": "a hat"}}.')
        if missing := [key for key in keys if key not in row]:
            raise AfterglowError(f"{place(file, number)} lacks {', '.join(missing)}.")
        yield number, row


def read_parquet(file: Path, columns: Sequence[str]) -> "pd.DataFrame":
    """A parquet table, which must have the columns."""
    import pandas as pd

    with reading(file, "a parquet table"):
        table = pd.read_parquet(file)
    if missing := [column for column in columns if column not in table.columns]:
        raise AfterglowError(f"'{file}' lacks the columns {', '.join(missing)}: it was not written by `afterglow`, or by another command.")
    return table


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping of a YAML file; empty for an empty file."""
    import yaml

    text = read_text(file, "text in UTF-8")
    with reading(file, "YAML"):
        check_yaml(text, f"'{file}'")
        value = yaml.safe_load(text)
    if not isinstance(value, dict | None):
        raise AfterglowError(f"'{file}' is not a mapping of options in YAML.")
    return value or {}


def check_yaml(text: str, name: str) -> None:
    """Raise AfterglowError if a YAML text contains itself, is nested too deeply, or is huge once its aliases are expanded."""
    import yaml

    sizes: dict[str | None, int] = {}
    nested: list[tuple[str | None, int]] = [(None, 0)]  # anchor and number of values of each collection that is open
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        anchor, size = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.CollectionStartEvent):
            nested.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = nested.pop()
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == opened for opened, _ in nested):
                raise AfterglowError(f"{name} is invalid YAML: the alias *{anchor} contains itself.")
            size = sizes.get(anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        if size:
            sizes[anchor] = size
            nested[-1] = nested[-1][0], nested[-1][1] + size
        if len(nested) > MAX_DEPTH or nested[-1][1] > MAX_NODES:
            raise AfterglowError(f"{name} is not a recipe: more than {MAX_DEPTH} nested levels or {MAX_NODES} values.")
