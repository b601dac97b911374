"""Lists of prompts: the jsonl of Wen et al. and Webster, the csv of NeMo, plain text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from afterglow.datasets.tables import checked_text, file_inside, read_table
from afterglow.errors import AfterglowError, shown
from afterglow.files import place

_KINDS = {"vm": "global", "tm": "local"}  # NeMo's types: verbatim and template
_SUFFIXES = (".jsonl", ".csv", ".txt")


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
            Paths of images and masks are relative to its folder and lie in it.
        kind: kind of captions without a label.

    Returns:
        The prompts, in order.

    Raises:
        AfterglowError: if a file, image or caption is missing or cannot be used; it names the line.
    """
    path = Path(file)
    if not path.is_file():
        raise AfterglowError(f"The list of prompts '{shown(path, 150)}' does not exist.")
    if path.suffix not in _SUFFIXES:
        raise AfterglowError(f"The list of prompts '{shown(path, 150)}' must end in one of {', '.join(_SUFFIXES)}.")
    rows = read_table(path)
    if not rows:
        raise AfterglowError(f"The list of prompts '{shown(path, 150)}' is empty.")
    names = str.lower if path.suffix == ".csv" else str
    return [_prompt({names(name): value for name, value in row.items()}, path.parent, place(path, line), kind) for line, row in rows]


def _prompt(row: Mapping[str, Any], folder: Path, where: str, kind: str) -> Prompt:
    if row.get("caption") in (None, ""):
        raise AfterglowError(f"{where}: the caption is missing.")
    caption = checked_text(row["caption"], "caption", where)
    label = checked_text(row.get("label") or row.get("type") or kind, "label", where)
    files = {name: file_inside(folder, str(row[name]), name, where) for name in ("image", "mask") if row.get(name)}
    return Prompt(caption, _KINDS.get(label.lower(), label), files.get("image"), files.get("mask"))


def with_labels(prompts: Iterable[Prompt], labels: Iterable[Prompt]) -> list[Prompt]:
    """Return the prompts with the kinds that another list gives their captions.

    Args:
        prompts: the prompts.
        labels: prompts with the same captions, whose kinds are taken.

    Raises:
        AfterglowError: if a caption has no label; it names the caption.
    """
    kinds = {prompt.caption: prompt.kind for prompt in labels}
    prompts = list(prompts)
    if missing := next((prompt.caption for prompt in prompts if prompt.caption not in kinds), None):
        raise AfterglowError(f"The list of labels has no caption '{shown(missing, 150)}'.")
    return [replace(prompt, kind=kinds[prompt.caption]) for prompt in prompts]
