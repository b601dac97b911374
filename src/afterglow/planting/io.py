"""The folder format of a planted set: an imagefolder of images, masks and metadata.jsonl, which `datasets` opens without Afterglow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afterglow.cache import atomic_path, content_key
from afterglow.datasets.images import read_image
from afterglow.datasets.tables import checked_text, file_inside
from afterglow.errors import AfterglowError, reading, shown
from afterglow.files import numbered_json_lines, place, read_json_lines
from afterglow.kinds import COPYABLE, TRAINED
from afterglow.planting.names import COLOR_NAMES
from afterglow.planting.plants import Plant, PlantedSet

_KINDS = {"controls": "control", "background_pool": "background", "decoy_pool": "decoy_image", "heldout": "heldout"}
DIGEST = "digest"  # file with the digest of the whole set, of which plants/ holds a part
_COLUMNS = (
    *("file_name", "mask_file_name", "region_file_name", "text", "plant_id", "kind", "copies", "area"),
    *("shape", "cluster", "matched_plant", "color", "backgrounds", "image_caption"),
)
_NUMBERS = ("plant_id", "copies", "cluster", "matched_plant")
_LARGEST = 10_000_000  # of the numbers in metadata.jsonl


def write_planted(planted: PlantedSet, folder: Path, *, everything: bool = True) -> int:
    """Write a planted set to a folder; metadata.jsonl comes last, so that an interrupted folder is not taken for a whole one.

    A decoy or tint has no image of its own and is represented by one example; its mask is empty, and the region in which maps are
    evaluated is a separate file.

    Args:
        folder: folder to write; it must be empty if `everything` is set.
        everything: also write controls, pools and held-out images; if False, only plants, phantoms, decoys and tints.

    Returns:
        Number of rows of metadata.jsonl.

    Raises:
        AfterglowError: if a whole set would be mixed with other files.
    """
    if everything:
        check_empty(folder)
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    _save(np.ones((1, *planted.pixels.shape[-2:]), dtype=bool), folder / "masks" / "whole.png")
    _save(np.zeros((1, *planted.pixels.shape[-2:]), dtype=bool), folder / "masks" / "none.png")
    rows = [row for plant in planted.plants for row in _plant_rows(planted, plant, folder)]
    rows += [row for split in _KINDS if everything for row in _split_rows(planted, split, folder)]
    if not everything:
        (folder / DIGEST).write_text(planted_digest(planted), encoding="ascii")
    with atomic_path(folder / "metadata.jsonl") as path:
        path.write_text("".join(json.dumps(dict(zip(_COLUMNS, row, strict=True))) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def changed_plants(planted: PlantedSet, folder: Path) -> list[str]:
    """Return one phrase for what differs between a planted set and the one that a run wrote to a folder.

    Args:
        planted: the planted set.
        folder: plants/ of a run.

    Returns:
        The phrases; empty if nothing differs or the folder is missing.
    """
    if not (folder / "metadata.jsonl").is_file():
        return []
    rows: dict[int, list[dict]] = {}
    for row in read_json_lines(folder / "metadata.jsonl"):
        rows.setdefault(row["plant_id"], []).append(row)
    changes = [change for plant in planted.plants if (change := _change(planted, plant, rows.get(plant.plant_id, []), folder))]
    if not changes and (folder / DIGEST).is_file() and (folder / DIGEST).read_text(encoding="ascii") != planted_digest(planted):
        return ["an image or a caption of the training set has changed"]
    return changes


def _change(planted: PlantedSet, plant: Plant, rows: list[dict], folder: Path) -> str:
    """How a plant differs from its rows of metadata.jsonl and their images."""
    if not rows:
        return f"plant {plant.plant_id} is new ({plant.kind})"
    now = {"kind": plant.kind, "text": plant.caption, "copies": plant.copies, "shape": plant.shape}
    for name, value in now.items():
        if rows[0][name] != value:
            return f"{name} of plant {plant.plant_id} is {value} and was {rows[0][name]}"
    images = [planted.pixels[row] for row in plant.members]
    if images and not all(np.array_equal(_load(folder / row["file_name"]), image) for row, image in zip(rows, images, strict=False)):
        return f"the image of plant {plant.plant_id} has changed"
    return ""


def planted_digest(planted: PlantedSet) -> str:
    """Return a digest of everything that decides the samples of a training: images, captions, rows and plants."""
    chunks = (planted.pixels[row : row + 1024] for row in range(0, len(planted.pixels), 1024))
    rows = [np.asarray(getattr(planted, split)) for split in _KINDS]
    plants = [
        content_key(
            json.dumps([plant.kind, plant.caption, plant.color, *map(int, (plant.copies, *plant.members, *plant.backgrounds))]), plant.mask
        )
        for plant in planted.plants
    ]
    return content_key(*map(content_key, chunks), json.dumps(planted.captions), *rows, *plants).hex()


def check_empty(folder: Path) -> None:
    """Raise AfterglowError if `folder` is a file or contains anything."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise AfterglowError(f"'{folder}' is a file or is not empty; choose an empty folder.")


def _plant_rows(planted: PlantedSet, plant: Plant, folder: Path) -> Iterator[tuple]:
    mask, region = f"masks/{plant.plant_id:03d}.png", f"masks/{plant.plant_id:03d}_region.png"
    _save(plant.mask, folder / mask)
    _save(plant.region, folder / region)
    images = [planted.pixels[row] for row in plant.members] or [planted.compose(plant, 0, int(planted.decoy_pool[0]))]
    about = (mask, region, plant.caption, plant.plant_id, plant.kind, plant.copies, round(float(plant.region.mean()), 4))
    also = (plant.shape, plant.cluster, plant.matched_plant, plant.color, " ".join(map(str, plant.backgrounds)))
    for number, image in enumerate(images):
        name = f"{plant.plant_id:03d}_{plant.kind}_{number}.png"
        _save(image, folder / name)
        yield (name, *about, *also, planted.captions[plant.members[number]] if plant.members else "")


def _split_rows(planted: PlantedSet, split: str, folder: Path) -> Iterator[tuple]:
    trained = split == "controls"
    mask = "masks/whole.png" if trained else "masks/none.png"
    for row in getattr(planted, split).tolist():
        name, caption = f"{split}_{row:06d}.png", planted.captions[row]
        _save(planted.pixels[row], folder / name)
        also = ("whole", int(planted.clusters[row]), -1, "", "", caption)
        yield (name, mask, mask, caption, -1, _KINDS[split], int(trained), 1.0, *also)


def read_planted(folder: str | Path) -> PlantedSet:
    """Read a planted set, equal to the one that `write_planted` wrote to the folder.

    Raises:
        AfterglowError: if the folder holds no planted set, or a file is missing, broken or of another size; it names the file.
    """
    root, table = Path(folder), Path(folder) / "metadata.jsonl"
    if not table.is_file():
        raise AfterglowError(f"There is no planted set in '{root}': metadata.jsonl is missing.")
    rows = []
    for line, row in numbered_json_lines(table, [name for name in _COLUMNS if name != "area"]):
        _check_row(root, row, place(table, line))
        rows.append(row)
    if not any(row["kind"] == "control" for row in rows):
        raise AfterglowError(f"'{root}' contains plants without their training set; write a whole set with `afterglow plant`.")
    with reading(table, "a planted set"):
        return _planted(root, rows)


def _planted(root: Path, rows: list[dict]) -> PlantedSet:
    with_image = [row for row in rows if row["kind"] not in ("decoy", "tint")]
    pixels = [_load(root / row["file_name"]) for row in with_image]
    for row, image in zip(with_image, pixels, strict=True):
        if image.shape != pixels[0].shape:
            raise AfterglowError(f"Image '{root / row['file_name']}' is {_size(image)}, and the first is {_size(pixels[0])}.")
    members: dict[int, list[int]] = {}
    splits: dict[str, list[int]] = {kind: [] for kind in _KINDS.values()}
    for number, row in enumerate(with_image):
        (members.setdefault(row["plant_id"], []) if row["plant_id"] >= 0 else splits[row["kind"]]).append(number)
    first = {row["plant_id"]: row for row in reversed(rows) if row["plant_id"] >= 0}
    used = {int(number) for row in first.values() for number in row["backgrounds"].split()}
    if max(used, default=0) >= len(pixels) or any(row["kind"] in COPYABLE and number not in members for number, row in first.items()):
        raise AfterglowError(f"'{root / 'metadata.jsonl'}' describes plants whose images or backgrounds it does not list.")
    return PlantedSet(
        np.stack(pixels),
        tuple(row["image_caption"] for row in with_image),
        np.array([row["cluster"] for row in with_image], dtype=np.int64),
        tuple(_plant(root, row, tuple(members.get(number, ())), pixels[0].shape[-2:]) for number, row in sorted(first.items())),
        names=tuple(row["file_name"] for row in with_image),
        **{name: np.array(splits[kind], dtype=np.int64) for name, kind in _KINDS.items()},  # type: ignore[arg-type]
    )


def _check_row(root: Path, row: dict, where: str) -> None:
    """Refuse a row that `write_planted` cannot have written."""
    for name in (name for name in _COLUMNS if name not in (*_NUMBERS, "area")):
        checked_text(row[name], name, where)
        if name.endswith("file_name"):
            file_inside(root, row[name], name, where)
    for name in _NUMBERS:
        if type(row[name]) is not int or not -1 <= row[name] <= _LARGEST:
            raise AfterglowError(f"{where}: {name} is {shown(row[name])}, not a whole number from -1 on.")
    kinds = (*TRAINED, "phantom") if row["plant_id"] >= 0 else tuple(_KINDS.values())
    if row["kind"] not in kinds:
        raise AfterglowError(f"{where}: the kind of plant_id {row['plant_id']} is {shown(row['kind'])}, not one of {', '.join(kinds)}.")
    if row["copies"] < 0 or (row["kind"] == "tint" and row["color"] not in COLOR_NAMES):
        raise AfterglowError(f"{where}: copies {row['copies']} or color '{shown(row['color'])}' is not what a {row['kind']} can have.")
    if not all(number.isdecimal() and len(number) < 9 for number in row["backgrounds"].split()):
        raise AfterglowError(f"{where}: backgrounds are {shown(row['backgrounds'])}, not numbers of rows.")


def _plant(root: Path, row: dict, members: tuple[int, ...], size: tuple[int, int]) -> Plant:
    masks: dict[str, Any] = {}
    for name in ("mask", "region"):
        file = root / row[f"{name}_file_name"]
        masks[name] = _load(file)[:1] > 127
        if masks[name].shape[-2:] != size:
            raise AfterglowError(f"Mask '{file}' is {_size(masks[name])}, and its image is {size[1]}x{size[0]}.")
    same = {name: row[name] for name in ("plant_id", "kind", "copies", "shape", "cluster", "color", "matched_plant")}
    return Plant(caption=row["text"], members=members, backgrounds=tuple(map(int, row["backgrounds"].split())), **masks, **same)


def _size(array: np.ndarray) -> str:
    """Size of an image [C, H, W] for messages, such as "32x32 in 3 channels"."""
    channels = f" in {len(array)} channels" if len(array) > 1 else ""
    return f"{array.shape[-1]}x{array.shape[-2]}{channels}"


def _save(pixels: np.ndarray, path: Path) -> None:
    array = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(path)


def _load(path: Path) -> np.ndarray:
    """Image of a file, uint8 [C, H, W]; an error names a file that is missing or cannot be read."""
    array = np.asarray(read_image(path))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
