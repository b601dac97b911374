"""Your own images: a folder of images, a saved `datasets` folder, or a set on the hub."""

import io
import logging
import os
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from afterglow.datasets.images import IMAGE_SUFFIXES, open_image
from afterglow.datasets.listing import ImageList
from afterglow.datasets.tables import checked_text, read_table
from afterglow.errors import AfterglowError, did_you_mean, shown
from afterglow.files import place

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTION_COLUMNS = ("text", "caption")
FAMILY_COLUMNS = ("family", "family_caption")
SPLIT_FOLDERS = {"train", "test", "val", "valid", "validation"}


@dataclass(frozen=True)
class _Table:
    """N images and the columns beside them; `labels` names the columns of classes, `folders` the sub-folder of each image."""

    names: Sequence[str]
    open_image: Callable[[int], Image.Image]
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str]
    folders: Sequence[str]
    labels: Sequence[str] = ()


def list_imagefolder(folder: str, caption_column: str | None = None) -> ImageList:
    """List a folder of images.

    Args:
        folder: an imagefolder, a `save_to_disk` folder, or a set on the hub ("owner/name"), of which the training split is taken.
        caption_column: column with the captions; by default text, caption, or the class names.

    Returns:
        The images and their captions.

    Raises:
        AfterglowError: if the folder or its metadata cannot be read; it names the culprit.
    """
    table = _open(folder)
    for name in table.names:
        if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
            raise AfterglowError(f"{shown(folder, 80)}: the file name '{shown(name, 100)}' is not UTF-8; rename the file.")
    captions = _captions(table, folder, caption_column)
    if missing := [name for name, caption in zip(table.names, captions, strict=True) if not caption.strip()]:
        log.warning(
            "%s: %s of %s images have no caption (%s).",
            *(shown(folder, 80), f"{len(missing):,}", f"{len(captions):,}", _few(missing)),
        )
    families, family_captions = _families(table, captions)
    unique = "" not in captions and len(set(captions)) == len(captions)
    return ImageList(folder, table.names, captions, table.open_image, unique, families, family_captions)


def _few(names: Sequence[str]) -> str:
    """The first names of a list for messages."""
    return ", ".join([*(shown(name, 40) for name in names[:3]), *(["..."] if names[3:] else [])])


def _open(folder: str) -> _Table:
    path = Path(folder)
    if path.is_dir():
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        return _open_saved(folder) if saved else _open_files(_training_folder(path), path)
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", folder):
        reason = "is a file" if path.exists() else "does not exist"
        raise AfterglowError(f"'{shown(folder, 150)}' {reason}; a folder of images was expected.")
    import datasets  # seconds, which a plain folder does not need

    try:
        return _saved_table(datasets.load_dataset(folder), folder)
    except AfterglowError:
        raise
    except Exception as error:  # without a network the hub's client raises a dozen kinds
        raise AfterglowError(f"'{folder}' is not a local folder and could not be loaded from the hub ({_reason(error)}).") from error


def _open_saved(folder: str) -> _Table:
    import datasets

    try:
        return _saved_table(datasets.load_from_disk(folder), folder)
    except AfterglowError:
        raise
    except Exception as error:
        raise AfterglowError(f"{shown(folder, 80)} looks like a saved set but cannot be opened ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    """First line of the cause; `datasets` wraps it in an error that says only where."""
    return shown(str(error.__cause__ or error).partition("\n")[0], 80)


def _saved_table(loaded: "datasets.Dataset | datasets.DatasetDict", folder: str) -> _Table:
    """The training split of a saved set; columns that are neither text nor numbers are left out."""
    import datasets

    if isinstance(loaded, datasets.DatasetDict):
        if "train" not in loaded and len(loaded) != 1:
            raise AfterglowError(f"{shown(folder, 80)} has no split `train`; its splits are {shown(', '.join(loaded), 100)}.")
        loaded = loaded["train"] if "train" in loaded else next(iter(loaded.values()))
    images = [name for name, feature in loaded.features.items() if isinstance(feature, datasets.Image) and name != "mask"]
    if not images or not len(loaded):
        raise AfterglowError(f"{shown(folder, 80)} contains no images.")
    image = "image" if "image" in images else images[0]
    files = loaded.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    names = _different([Path((row[image] or {}).get("path") or f"{number:06d}").name for number, row in enumerate(files)])
    labels = {name: feature for name, feature in loaded.features.items() if isinstance(feature, datasets.ClassLabel)}
    columns = {name: list(loaded[name]) for name, feature in loaded.features.items() if isinstance(feature, datasets.Value)}
    for name, feature in labels.items():
        classes = [words.replace("_", " ") for words in feature.names]
        columns[name] = [None if label in (None, -1) else classes[label] for label in loaded[name]]

    def open_row(index: int) -> Image.Image:
        value = files[index][image]
        if value is None:
            raise FileNotFoundError
        return open_image(io.BytesIO(value["bytes"]) if value["bytes"] else Path(value["path"]))

    places = [f"{shown(folder, 80)}, row {row}" for row in range(len(names))]
    return _Table(names, open_row, columns, places, [""] * len(names), list(labels))


def _different(names: list[str]) -> list[str]:
    """The names, with the number of the row if one occurs twice."""
    return names if len(set(names)) == len(names) else [f"{name}#{row}" for row, name in enumerate(names)]


def _training_folder(path: Path) -> Path:
    """The folder itself, or its `train` if the set has one folder per split."""
    inside = {entry.name for entry in path.iterdir() if entry.is_dir()}
    return path / "train" if "train" in inside and len(inside) > 1 and inside <= SPLIT_FOLDERS else path


def _open_files(root: Path, folder: Path) -> _Table:
    """The images below `root`; names are paths below `folder`. All files that are left out are counted and named in one line."""
    files, broken = _files(root)
    images = [file for file in files if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise AfterglowError(f"{shown(root, 100)} contains no images{_left_out(files, broken, [])}.")
    tables = [file for file in files if posixpath.basename(file) in METADATA]
    rows = [(root / table, line, row) for table in tables for line, row in read_table(root / table)]
    _check_metadata(root, tables, files, bool(rows))
    names = [_image_name(root, file, line, row) for file, line, row in rows] if rows else images
    others = {_below(root, file, str(value)) for file, _, row in rows for column, value in row.items() if column.endswith("_file_name")}
    unlisted = sorted(set(images) - set(names) - others) if rows else []
    if left_out := _left_out(set(files) - set(images) - set(tables) - set(names), broken, unlisted):
        log.warning("%s%s.", shown(root, 100), left_out)
    paths = [root / name for name in names]
    prefix = root.relative_to(folder).as_posix()
    folders = [PurePosixPath(name).parent.name.replace("_", " ") for name in names]
    names = _different([posixpath.normpath(f"{prefix}/{name}") for name in names])
    keys = dict.fromkeys(key for _, _, row in rows for key in row if key != "file_name" and not key.endswith("_file_name"))
    columns = {key: [row.get(key) for _, _, row in rows] for key in keys}
    places = [place(file, line) for file, line, _ in rows] or names
    return _Table(names, lambda index: open_image(paths[index]), columns, places, folders)


def _files(root: Path) -> tuple[list[str], list[str]]:
    """Paths of all files below a folder, and of what cannot be read: broken links, links to a folder above, pipes. Hidden files: none."""
    files, broken = list[str](), list[str]()

    def visit(folder: str, prefix: str, above: frozenset[str]) -> None:
        for entry in os.scandir(folder):
            name = prefix + entry.name
            if entry.name.startswith((".", "__")):
                continue
            if os.path.isfile(entry.path):  # unlike entry.is_file() it has an answer for loops of links
                files.append(name)
            elif os.path.isdir(entry.path) and (real := os.path.realpath(entry.path)) not in above:
                visit(entry.path, f"{name}/", above | {real})
            else:
                broken.append(name)

    visit(str(root), "", frozenset({os.path.realpath(root)}))
    return sorted(files), sorted(broken)


def _left_out(others: Sequence[str] | set[str], broken: Sequence[str], unlisted: Sequence[str]) -> str:
    """What is not used of a folder, such as ": left out are 2 files that are no images (notes.txt, README)"; empty if all is used."""
    kinds = {
        "images that its metadata does not list": unlisted,
        "broken links, loops of links or pipes": broken,
        "files without the suffix of an image": sorted(others),
    }
    parts = [f"{len(names):,} {kind} ({_few(names)})" for kind, names in kinds.items() if names]
    return f": left out are {'; '.join(parts)}" if parts else ""


def _check_metadata(root: Path, tables: Sequence[str], files: Sequence[str], has_rows: bool) -> None:
    """Refuse metadata that would be ignored: empty, in two formats, or under a name that is almost right."""
    if tables and not has_rows:
        raise AfterglowError(f"'{shown(root / tables[0], 150)}' is empty; it should list each image with file_name and text.")
    if len({PurePosixPath(table).suffix for table in tables}) > 1:
        raise AfterglowError(f"{shown(root, 100)} has metadata in several formats ({_few(tables)}); keep one.")
    almost = [file for file in files if not tables and get_close_matches(posixpath.basename(file).lower(), METADATA, cutoff=0.85)]
    if almost:
        raise AfterglowError(
            f"'{shown(root / almost[0], 120)}' would not be read; name it metadata.jsonl, .csv or .parquet, or move it away."
        )


def _image_name(root: Path, file: Path, line: int, row: Mapping[str, Any]) -> str:
    """Path below `root` of the image of one row of metadata."""
    if "file_name" not in row:
        raise AfterglowError(f"{place(file, line)}: there is no column file_name; the columns are {shown(', '.join(row), 80)}.")
    if row["file_name"] in (None, ""):
        raise AfterglowError(f"{place(file, line)} names no image.")
    name = _below(root, file, checked_text(row["file_name"], "file_name", place(file, line)))
    if name.startswith(("../", "/")) or name == "..":
        raise AfterglowError(f"{place(file, line)}: the image '{shown(name, 80)}' lies outside the folder.")
    return name


def _below(root: Path, file: Path, name: str) -> str:
    """A path that is relative to a metadata file => relative to `root`."""
    return posixpath.normpath(posixpath.join(file.parent.relative_to(root).as_posix(), name))


def _captions(table: _Table, folder: str, column: str | None) -> tuple[str, ...]:
    """The caption column, else the class labels, else the name of each image's sub-folder ("" where it lies in none)."""
    columns = table.columns
    if column is not None and column not in columns:
        known = shown(", ".join(columns), 80) or "none"
        nearest = did_you_mean(column, columns) or "."
        raise AfterglowError(f"{shown(folder, 80)} has no caption column {shown(repr(column), 40)}; its columns are {known}{nearest}")
    column = column or next((name for name in (*CAPTION_COLUMNS, *table.labels) if name in columns), None)
    if column is not None:
        return tuple(
            "" if value is None else checked_text(value, f"caption ({shown(column, 30)})", where)
            for value, where in zip(columns[column], table.places, strict=True)
        )
    texts = [name for name, values in columns.items() if name not in FAMILY_COLUMNS and any(isinstance(value, str) for value in values)]
    if texts:
        raise AfterglowError(
            f"{shown(folder, 80)} has no caption column `text` or `caption`; set caption_column to one of its text columns: "
            f"{shown(', '.join(texts), 80)}."
        )
    return tuple(table.folders)


def _families(table: _Table, captions: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Column `family` => int64 [N] numbered from 0 in order of appearance (-1 = of none), and the caption of each number."""
    if "family" not in table.columns:
        return np.full(len(captions), -1, dtype=np.int64), {}
    members: dict[str, list[int]] = {}
    for row, family in enumerate(table.columns["family"]):
        if str(family) not in ("None", "", "-1", "nan"):  # an integer column with gaps may come as NaN
            members.setdefault(str(family), []).append(row)
    given = table.columns.get("family_caption", [None] * len(captions))
    families, family_captions = np.full(len(captions), -1, dtype=np.int64), dict[int, str]()
    for number, rows in enumerate(members.values()):
        families[rows] = number
        own = next((row for row in rows if given[row]), None)
        shared = _common_words([captions[row] for row in rows])
        family_captions[number] = shared if own is None else checked_text(given[own], "family_caption", table.places[own])
    return families, family_captions


def _common_words(captions: Sequence[str]) -> str:
    others = [set(caption.split()) for caption in captions[1:]]
    return " ".join(word for word in captions[0].split() if all(word in other for other in others)).strip(" ,:;")
