"""The plants at each evaluation: generations, maps and masks as sheets of tiles, which the page moves with one slider."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afterglow.reports.images import HEAT_COLORS, LARGEST_EXACT, encoded, heat, read_pixels
from afterglow.reports.run import EvaluationFile, Run
from afterglow.reports.run_tables import MAIN_MAPS, MAPS_WITHOUT_TEXT, best_end_token_map

MAX_STEPS, MAX_PLANTS = 16, 64  # what one page holds
LARGEST_TILE = 64  # pixels; larger images are reduced
SHEET_COLUMNS = 8  # tiles in one row of a sheet
CARD_KINDS = ("local", "global", "natural", "phantom", "decoy", "tint")


def shown_steps(run: Run) -> list[int]:
    """At most MAX_STEPS evaluations with saved images."""
    return spread_steps(list(run.evaluations))


def spread_steps(steps: Sequence[int]) -> list[int]:
    """At most MAX_STEPS of the steps, spread evenly, the first and the last among them."""
    places = np.linspace(0, len(steps) - 1, min(len(steps), MAX_STEPS)).round().astype(int)
    return [steps[place] for place in dict.fromkeys(places.tolist())]


def shown_plants(run: Run) -> list[int]:
    """At most MAX_PLANTS plants that were evaluated: the same share of each kind; without plants, the first generations."""
    if not run.evaluations:
        return []
    evaluated = list(dict.fromkeys(number for number, _ in run.evaluations[max(run.evaluations)].row))
    kinds = {kind: [n for n in evaluated if run.plants.get(n, {}).get("kind") == kind] for kind in CARD_KINDS}
    total = sum(map(len, kinds.values()))
    share = min(1.0, MAX_PLANTS / max(1, total))
    chosen = [number for numbers in kinds.values() for number in numbers[: max(1, round(share * len(numbers)))]]
    return chosen[:MAX_PLANTS] or evaluated[:MAX_PLANTS]


def timeline(run: Run) -> dict[str, Any] | None:
    """Everything that the slider shows, as JSON: one sheet of tiles per step for generations, maps and predicted masks.

    Returns:
        None without saved images. Otherwise steps, plants, maps; `tile` is the side of a tile in pixels; `memorized`, `distance` and
        `auc` hold one value per step and plant (null where it was not measured).
    """
    steps, numbers = shown_steps(run), shown_plants(run)
    if not numbers:
        return None
    files = [run.evaluations[step] for step in steps]
    side = min(files[0].images.shape[-1], LARGEST_TILE)
    best = best_end_token_map(run)
    candidates = dict.fromkeys([*MAIN_MAPS, *([best] if best else []), *MAPS_WITHOUT_TEXT])
    names = [name for name in candidates if any(f"map/{name}" in file.names for file in files)]
    rows = [[file.first_row(number) for number in numbers] for file in files]
    return {
        "steps": steps,
        "hidden_steps": len(run.evaluations) - len(steps),
        "tile": side,
        "columns": SHEET_COLUMNS,
        "plants": [_plant(run, number) for number in numbers],
        "maps": names,
        "reference": _sheet([_reference(run, number) for number in numbers], side),
        "region": _mask_sheet([_array(files[-1], "region", row) for row in rows[-1]], side),
        "images": [_saved_sheet(file, "images", found, side) for file, found in zip(files, rows, strict=True)],
        "map": {name: [_saved_sheet(file, f"map/{name}", found, side) for file, found in zip(files, rows, strict=True)] for name in names},
        "mask": {
            name: [_saved_sheet(file, f"mask/{name}", found, side) for file, found in zip(files, rows, strict=True)] for name in names
        },
        "memorized": _values(run, "plant_memorized", steps, numbers),
        "distance": _values(run, "calibrated_l2", steps, numbers),
        "auc": {name: _values(run, f"auc.{name}", steps, numbers) for name in names},
    }


def _plant(run: Run, number: int) -> dict[str, Any]:
    plant = run.plants.get(number)
    if plant is None:
        row = run.rows[run.rows["plant_id"] == number].iloc[0]
        return {"id": number, "kind": row["kind"], "caption": row["caption"] or f"generation {number}", "detail": "", "emerged": ""}
    low, high = run.emergence["kinds"].get(plant["kind"], {}).get("intervals", {}).get(str(number), (None, None))
    emerged = "" if low is None else f"not emerged by step {low:g}" if high is None else f"emerged after step {low:g}, by step {high:g}"
    copies = f"{plant['copies']} per epoch" if plant["copies"] else "never trained on"
    return {"id": number, "kind": plant["kind"], "caption": plant["text"], "detail": f"{plant['shape']}, {copies}", "emerged": emerged}


def _values(run: Run, measure: str, steps: Sequence[int], numbers: Sequence[int]) -> list[list[float | None]]:
    """Means over seeds of one measure, [steps][plants]."""
    wide = run.rows_of(measure, steps).pivot_table(index="step", columns="plant_id", values="value").reindex(index=steps, columns=numbers)
    return [[None if np.isnan(value) else round(value, 3) for value in line] for line in wide.to_numpy()]


def _array(file: EvaluationFile, name: str, row: int | None) -> np.ndarray | None:
    if row is None:
        return None
    values = file.tensor(name)[row]
    return values if values.ndim == 3 else values[None]


def _reference(run: Run, number: int) -> np.ndarray | None:
    plant = run.plants.get(number)
    return None if plant is None else read_pixels(run.folder / "plants" / plant["file_name"])


def _saved_sheet(file: EvaluationFile, name: str, rows: Sequence[int | None], side: int) -> str | None:
    """The sheet of one saved array; None if the evaluation did not save it."""
    return _cached_sheet(file.path.resolve(), file.path.stat().st_mtime_ns, name, tuple(rows), side) if name in file.names else None


@lru_cache(maxsize=1024)  # a training draws the sheets of all earlier evaluations again after each evaluation
def _cached_sheet(path: Path, version: int, name: str, rows: tuple[int | None, ...], side: int) -> str | None:
    values = EvaluationFile(path).tensor(name)
    values = heat(values, (side, side)) if name.startswith("map/") else values
    tiles = [None if row is None else values[row] if values.ndim == 4 else values[row][None] for row in rows]
    return _mask_sheet(tiles, side) if name.startswith("mask/") else _sheet(tiles, side, "P" if name.startswith("map/") else "RGB")


def _mask_sheet(masks: Sequence[np.ndarray | None], side: int) -> str | None:
    return _sheet([None if mask is None else mask.astype(np.uint8) * 255 for mask in masks], side, "1")


def _sheet(tiles: Sequence[np.ndarray | None], side: int, mode: str = "RGB") -> str | None:
    """Tiles, uint8 [C, H, W], as one image in a data URI; missing tiles are dark. PNG, or JPEG for photographs of large tiles.

    mode: of Pillow; P: tiles hold places in HEAT_COLORS, which takes a third of the bytes.
    """
    if all(tile is None for tile in tiles):
        return None
    sheet = np.zeros((-(-len(tiles) // SHEET_COLUMNS) * side, SHEET_COLUMNS * side, 3 if mode == "RGB" else 1), dtype=np.uint8)
    for place, tile in enumerate(tiles):
        if tile is not None:
            top, left = place // SHEET_COLUMNS * side, place % SHEET_COLUMNS * side
            sheet[top : top + side, left : left + side] = _fitted(tile, side, mode == "1").transpose(1, 2, 0)
    image = Image.fromarray(sheet if mode == "RGB" else sheet[..., 0])
    if mode == "P":
        image.putpalette(HEAT_COLORS.tobytes())
    image, exact = image.convert(mode, dither=Image.Dither.NONE), mode == "1" or side <= LARGEST_EXACT
    return encoded(image if exact else image.convert("RGB"), exact=exact)


def _fitted(tile: np.ndarray, side: int, bits: bool) -> np.ndarray:
    """A tile [C, H, W] at the side of the sheet."""
    if tile.shape[-2:] == (side, side):
        return tile
    method = Image.Resampling.NEAREST if bits else Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(channel).resize((side, side), method)) for channel in tile])
