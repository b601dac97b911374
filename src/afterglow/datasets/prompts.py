"""Lists of prompts: the jsonl of Wen et al. and Webster, the csv of NeMo, plain text."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afterglow.errors import AfterglowError

_KINDS = {"vm": "global", "tm": "local"}  # NeMo's types: verbatim and template


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        caption: the text.
        kind: global (VM), local (TM), or the label in the list.
        image: file of its training image, or None.
        mask: file of the mask of the copied region, or None.
    """

    caption: str
    kind: str
    image: Path | None = None
    mask: Path | None = None


def read_prompts(file: str | Path, *, kind: str = "prompt") -> list[Prompt]:
    """Read a list of prompts.

    Args:
        file: .jsonl (caption; optional image, mask, label), .csv (Caption, type; separated by ';' or ',') or .txt (one caption per line).
            Paths of images and masks are relative to its folder.
        kind: kind of captions without a label.

    Returns:
        The prompts, in order.

    Raises:
        AfterglowError: if a file, image or caption is missing; it names the entry.
    """
    path = Path(file)
    if not path.is_file():
        raise AfterglowError(f"The list of prompts '{path}' does not exist.")
    readers = {".jsonl": _jsonl, ".csv": _csv, ".txt": _txt}
    if path.suffix not in readers:
        raise AfterglowError(f"The list of prompts '{path}' must end in one of {', '.join(readers)}.")
    rows = list(readers[path.suffix](path))
    if not rows:
        raise AfterglowError(f"The list of prompts '{path}' is empty.")
    return [_prompt(row, path, number, kind) for number, row in enumerate(rows, start=1)]


def _prompt(row: Mapping[str, Any], path: Path, number: int, kind: str) -> Prompt:
    if not row.get("caption"):
        raise AfterglowError(f"'{path}', entry {number}: the caption is missing.")
    label = str(row.get("label") or row.get("type") or kind)
    files = {}
    for name in ("image", "mask"):
        if row.get(name):
            files[name] = path.parent / str(row[name])
            if not files[name].is_file():
                raise AfterglowError(f"'{path}', entry {number}: its {name} '{files[name]}' is missing.")
    return Prompt(str(row["caption"]), _KINDS.get(label.lower(), label), files.get("image"), files.get("mask"))


def _jsonl(path: Path) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise AfterglowError(f"'{path}', line {number}: this is not JSON ({error.msg}).") from error
        if not isinstance(row, dict):
            raise AfterglowError(f"'{path}', line {number}: an object with a caption was expected.")
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
    """Return the prompts with the kinds that another list gives their captions.

    Args:
        prompts: the prompts.
        labels: prompts with the same captions, whose kinds are taken.

    Raises:
        AfterglowError: if a caption has no label; it names the caption.
    """
    kinds = {prompt.caption: prompt.kind for prompt in labels}
    result = []
    for prompt in prompts:
        if prompt.caption not in kinds:
            raise AfterglowError(f"The list of labels has no caption '{prompt.caption}'.")
        result.append(Prompt(prompt.caption, kinds[prompt.caption], prompt.image, prompt.mask))
    return result
