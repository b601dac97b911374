"""Lists of captions in the formats of their authors: Wen's and Webster's jsonl, NeMo's table, plain text."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {"vm": "global", "tm": "local"}  # NeMo's types: verbatim and template


@dataclass(frozen=True)
class Prompt:
    """One caption; kind: global (VM), local (TM), or the list's own label; image and mask: files of its training image, or None."""

    caption: str
    kind: str
    image: Path | None = None
    mask: Path | None = None


def read_prompts(file: str | Path, *, kind: str = "prompt") -> list[Prompt]:
    """The captions of a list: .jsonl (caption; optional image, mask, label), .csv (Caption, type; ';' or ','), or .txt (a line each).

    kind: of captions without a label. Images are looked for beside the list. Raises ValueError that names a missing file,
    image or caption; a missing image is never replaced.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"There is no list of prompts '{path}'.")
    readers = {".jsonl": _jsonl, ".csv": _csv, ".txt": _txt}
    if path.suffix not in readers:
        raise ValueError(f"A list of prompts ends in {', '.join(readers)}, and '{path}' does not.")
    rows = list(readers[path.suffix](path))
    if not rows:
        raise ValueError(f"The list of prompts '{path}' is empty.")
    return [_prompt(row, path, number, kind) for number, row in enumerate(rows, start=1)]


def _prompt(row: Mapping[str, Any], path: Path, number: int, kind: str) -> Prompt:
    if not row.get("caption"):
        raise ValueError(f"'{path}', entry {number}: there is no caption.")
    label = str(row.get("label") or row.get("type") or kind)
    files = {}
    for name in ("image", "mask"):
        if row.get(name):
            files[name] = path.parent / str(row[name])
            if not files[name].is_file():
                raise ValueError(f"'{path}', entry {number}: its {name} '{files[name]}' is missing.")
    return Prompt(str(row["caption"]), KINDS.get(label.lower(), label), files.get("image"), files.get("mask"))


def _jsonl(path: Path) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"'{path}', line {number}: this is no JSON ({error.msg}).") from error
        if not isinstance(row, dict):
            raise ValueError(f"'{path}', line {number}: an object with a caption was expected.")
        yield row


def _csv(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(encoding="utf-8", newline="") as lines:
        first = lines.readline()
        lines.seek(0)
        for row in csv.DictReader(lines, delimiter=";" if first.count(";") >= first.count(",") else ","):
            yield {str(name).lower(): value for name, value in row.items()}


def _txt(path: Path) -> Iterable[Mapping[str, Any]]:
    return ({"caption": line} for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def with_labels(prompts: Iterable[Prompt], labels: Iterable[Prompt]) -> list[Prompt]:
    """The same prompts with the kinds that another list gives their captions; ValueError names a caption that it lacks."""
    kinds = {prompt.caption: prompt.kind for prompt in labels}
    found = []
    for prompt in prompts:
        if prompt.caption not in kinds:
            raise ValueError(f"The list of labels has no caption '{prompt.caption}'.")
        found.append(Prompt(prompt.caption, kinds[prompt.caption], prompt.image, prompt.mask))
    return found
