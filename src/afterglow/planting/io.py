"""The folder format of a planted set: an imagefolder of images, masks and metadata.jsonl, which `datasets` opens without Afterglow."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from afterglow.cache import atomic_path, content_key
from afterglow.datasets.images import read_image
from afterglow.errors import AfterglowError
from afterglow.files import read_json_lines
from afterglow.planting.plants import Plant, PlantedSet

_KINDS = {"controls": "control", "background_pool": "background", "decoy_pool": "decoy_image", "heldout": "heldout"}
SPLITS = tuple(_KINDS)
DIGEST = "digest"  # file with the digest of the whole set, of which plants/ holds a part
_COLUMNS = (
    *("file_name", "mask_file_name", "region_file_name", "text", "plant_id", "kind", "copies"),
    *("shape", "cluster", "matched_plant", "color", "backgrounds", "image_caption"),
)


def write_planted(planted: PlantedSet, folder: Path, *, everything: bool = True) -> int:
    """Write a planted set to a folder.

    A decoy or tint has no image of its own and is represented by one example; its mask is empty, and the region in which maps are
    evaluated is a separate file.

    Args:
        planted: the planted set.
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
    if everything:
        rows += [row for split in SPLITS for row in _split_rows(planted, split, folder)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not everything:
        (folder / DIGEST).write_text(planted_digest(planted), encoding="ascii")
    with atomic_path(folder / "metadata.jsonl") as path:
        path.write_text(text, encoding="utf-8")
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
    rows = [np.asarray(getattr(planted, split)) for split in SPLITS]
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


def _plant_rows(planted: PlantedSet, plant: Plant, folder: Path) -> Iterator[dict]:
    mask, region = f"masks/{plant.plant_id:03d}.png", f"masks/{plant.plant_id:03d}_region.png"
    _save(plant.mask, folder / mask)
    _save(plant.region, folder / region)
    images = [planted.pixels[row] for row in plant.members] or [planted.compose(plant, 0, int(planted.decoy_pool[0]))]
    for number, image in enumerate(images):
        name = f"{plant.plant_id:03d}_{plant.kind}_{number}.png"
        _save(image, folder / name)
        yield {
            "file_name": name,
            "mask_file_name": mask,
            "region_file_name": region,
            "text": plant.caption,
            "plant_id": plant.plant_id,
            "kind": plant.kind,
            "copies": plant.copies,
            "area": round(float(plant.region.mean()), 4),
            "shape": plant.shape,
            "cluster": plant.cluster,
            "matched_plant": plant.matched_plant,
            "color": plant.color,
            "backgrounds": " ".join(map(str, plant.backgrounds)),
            "image_caption": planted.captions[plant.members[number]] if plant.members else "",
        }


def _split_rows(planted: PlantedSet, split: str, folder: Path) -> Iterator[dict]:
    trained = split == "controls"
    for row in getattr(planted, split).tolist():
        name = f"{split}_{row:06d}.png"
        _save(planted.pixels[row], folder / name)
        mask = "masks/whole.png" if trained else "masks/none.png"
        caption = planted.captions[row]
        yield {
            "file_name": name,
            "mask_file_name": mask,
            "region_file_name": mask,
            "text": caption,
            "plant_id": -1,
            "kind": _KINDS[split],
            "copies": int(trained),
            "area": 1.0,
            "shape": "whole",
            "cluster": int(planted.clusters[row]),
            "matched_plant": -1,
            "color": "",
            "backgrounds": "",
            "image_caption": caption,
        }


def read_planted(folder: str | Path) -> PlantedSet:
    """Read a planted set.

    Args:
        folder: a folder that `write_planted` wrote.

    Returns:
        The planted set, equal to the one that was written.

    Raises:
        AfterglowError: if the folder holds no planted set, or a file is missing, broken or of another size; it names the file.
    """
    root = Path(folder)
    rows = _read_rows(root)
    pixels: list[np.ndarray] = []
    captions, clusters = [], []
    members: dict[int, list[int]] = {}
    splits: dict[str, list[int]] = {kind: [] for kind in _KINDS.values()}
    for row in rows:
        if row["kind"] in ("decoy", "tint"):
            continue
        place = members.setdefault(row["plant_id"], []) if row["plant_id"] >= 0 else splits[row["kind"]]
        place.append(len(pixels))
        pixels.append(_load(root / row["file_name"]))
        if pixels[-1].shape != pixels[0].shape:
            raise AfterglowError(f"Image '{root / row['file_name']}' is {_size(pixels[-1])}, and the first is {_size(pixels[0])}.")
        captions.append(row["image_caption"])
        clusters.append(row["cluster"])
    first = {row["plant_id"]: row for row in reversed(rows) if row["plant_id"] >= 0}
    plants = tuple(_plant(root, row, tuple(members.get(number, ())), pixels[0].shape[-2:]) for number, row in sorted(first.items()))
    controls, background_pool, decoy_pool, heldout = (np.array(split, dtype=np.int64) for split in splits.values())
    return PlantedSet(
        np.stack(pixels), tuple(captions), np.array(clusters, dtype=np.int64), plants, controls, background_pool, decoy_pool, heldout
    )


def _read_rows(root: Path) -> list[dict]:
    table = root / "metadata.jsonl"
    if not table.is_file():
        raise AfterglowError(f"There is no planted set in '{root}': metadata.jsonl is missing.")
    rows = read_json_lines(table, _COLUMNS)
    if not any(row["kind"] == "control" for row in rows):
        raise AfterglowError(f"'{root}' contains plants without their training set; write a whole set with `afterglow plant`.")
    return rows


def _plant(root: Path, row: dict, members: tuple[int, ...], size: tuple[int, int]) -> Plant:
    masks = []
    for name in (row["mask_file_name"], row["region_file_name"]):
        mask = _load(root / name)[:1] > 127
        if mask.shape[-2:] != size:
            raise AfterglowError(f"Mask '{root / name}' is {_size(mask)}, and its image is {size[1]}x{size[0]}.")
        masks.append(mask)
    return Plant(
        plant_id=row["plant_id"],
        kind=row["kind"],
        caption=row["text"],
        copies=row["copies"],
        shape=row["shape"],
        mask=masks[0],
        region=masks[1],
        cluster=row["cluster"],
        members=members,
        backgrounds=tuple(map(int, row["backgrounds"].split())),
        color=row["color"],
        matched_plant=row["matched_plant"],
    )


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
