"""Rows of images: samples over training, and maps against the planted masks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from afterglow.reports.images import LARGEST_EXACT, InlineImage, heat, inline_image, read_pixels
from afterglow.reports.run import Run

SHOWN = {"global": 3, "local": 4, "natural": 2, "phantom": 4, "decoy": 2, "tint": 2}  # plants of each kind in the sample grid
NUM_UNPROMPTED = 8
MANY_COLUMNS = 12  # more do not fit beside each other at full size
MAPPED = {"local": 8, "phantom": 2, "tint": 2}  # and in the grid of maps
MAPS_WITHOUT_TEXT = ("early_difference.summed", "early_difference.last", "patch_nearness", "self_attention")
FIXED_MAPS = ("score_difference.summed", "end_token.last.first_eos.be", "end_token.last.first_eos.all")


@dataclass(frozen=True)
class ImageRow:
    """What is shown of one plant; None where there is no image."""

    label: str
    kind: str
    remark: str
    images: Sequence[InlineImage | None]


@dataclass(frozen=True)
class Grid:
    """head names the columns of images; starred: whether one was chosen after the fact."""

    head: Sequence[str]
    rows: Sequence[ImageRow]
    starred: bool = False

    @property
    def side(self) -> int:
        """Of an image on the screen, in CSS pixels: large images larger, many columns smaller."""
        if any(image.width > LARGEST_EXACT for row in self.rows for image in row.images if image):
            return 96
        return 64 if len(self.head) <= MANY_COLUMNS else 48


def sample_grid(run: Run) -> Grid | None:
    """Reference, then the first seed at each probe, then the other seeds at the last one."""
    if not run.probed:
        return None
    last = max(run.probed)
    chosen = _first_of_each_kind(run) or [number for number, _ in run.probed[last].row][:NUM_UNPROMPTED]
    judged = _judged(run)
    others = max((len(run.probed[last].seeds(number)) - 1 for number in chosen), default=0)
    rows = [_samples(run, number, others, judged) for number in chosen]
    references = any(row.images[0] for row in rows)
    head = [*(["planted"] if references else []), *(f"step {step}" for step in run.probed), *(f"seed {turn + 1}" for turn in range(others))]
    return Grid(head, rows if references else [ImageRow(row.label, row.kind, row.remark, row.images[1:]) for row in rows])


def _first_of_each_kind(run: Run) -> list[int]:
    """By number, never by outcome; of phantoms half are twins of global plants and half of local ones."""
    asked = {number for number, _ in run.probed[max(run.probed)].row}
    found: list[int] = []
    for kind, count in SHOWN.items():
        numbers = [number for number, about in run.plants.items() if about["kind"] == kind and number in asked]
        if kind == "phantom":
            whole = [number for number in numbers if run.plants[number]["shape"] == "whole"]
            numbers = whole[: count // 2] + [number for number in numbers if number not in whole][: count // 2]
        found += numbers[:count]
    return found


def _judged(run: Run) -> dict[tuple[int, int, int], float]:
    """{(step, plant_id, seed): calibrated distance}."""
    rows = run.rows[run.rows["measure"] == "calibrated_l2"]
    return dict(zip(zip(rows["step"], rows["plant_id"], rows["seed"], strict=True), rows["value"], strict=True))


def _samples(run: Run, number: int, others: int, judged: Mapping[tuple[int, int, int], float]) -> ImageRow:
    images: list[InlineImage | None] = [_reference(run, number)]
    for step, probed in run.probed.items():
        images.append(_generation(run, (step, number, probed.seeds(number)[0]), judged) if probed.seeds(number) else None)
    last = max(run.probed)
    more = run.probed[last].seeds(number)[1:]
    images += [_generation(run, (last, number, seed), judged) for seed in more]
    images += [None] * (others - len(more))
    about = run.plants.get(number)
    if about is None:
        return ImageRow(f"generation {number}", "unprompted", "", images)
    return ImageRow(about["text"], about["kind"], _remark(about["shape"], about["copies"]), images)


def _remark(shape: str, copies: int) -> str:
    return f"{shape}, {copies} an epoch" if copies else f"{shape}, never trained on"


def _generation(run: Run, key: tuple[int, int, int], judged: Mapping[tuple[int, int, int], float]) -> InlineImage:
    step, number, seed = key
    probed, value = run.probed[step], judged.get(key)
    title = f"step {step}, seed {seed}" + ("" if value is None else f", calibrated distance {value:.3f}")
    return inline_image(probed.images[probed.row[number, seed]], title, copied=value is not None and value < 1)


def _reference(run: Run, number: int) -> InlineImage | None:
    """The planted image with its mask; of a decoy or tint, which has none, an example with the tinted region."""
    about = run.plants.get(number)
    if about is None:
        return None
    folder = run.folder / "plants"
    mask = read_pixels(folder / about["mask_file_name" if about["kind"] != "tint" else "region_file_name"])[0] > 127
    title = "an example" if about["kind"] in ("decoy", "tint") else "the image, its mask outlined"
    return inline_image(read_pixels(folder / about["file_name"]), title, mask=mask)


def map_grid(run: Run, best: str | None) -> Grid | None:
    """Generation, planted mask, and maps with the masks predicted from them, at the last probe; `best` names one more map."""
    if run.last not in run.probed or "local" not in run.kinds or not run.plants:
        return None
    probed = run.probed[run.last]
    named = [name for name in dict.fromkeys([*FIXED_MAPS, *([best] if best else [])]) if f"map/{name}" in probed.names]
    names = named or [name for name in MAPS_WITHOUT_TEXT if f"map/{name}" in probed.names]
    values = run.last_rows[run.last_rows["measure"].str.startswith("auc.")].set_index(["plant_id", "seed", "measure"])["value"].sort_index()
    rows = [_maps(run, number, names, values) for number in _mapped(run)]
    return Grid(["generation", "mask", *(f"{name} *" if name == best else name for name in names)], rows, best in names)


def _mapped(run: Run) -> Iterator[int]:
    """Local plants, and a few local phantoms and tints beside them."""
    asked = {number for number, _ in run.probed[run.last].row}
    for kind, count in MAPPED.items():
        numbers = [n for n, about in run.plants.items() if about["kind"] == kind and about["shape"] != "whole" and n in asked]
        yield from numbers[:count]


def _maps(run: Run, number: int, names: Sequence[str], values: pd.Series) -> ImageRow:
    probed, about = run.probed[run.last], run.plants[number]
    seed = probed.seeds(number)[0]
    row = probed.row[number, seed]
    image, region = probed.images[row], probed.tensor("region")[row, 0]
    images = [inline_image(image, f"seed {seed}"), inline_image(region[None].astype(np.uint8) * 255, "where the map should be bright")]
    for name in names:
        predicted = probed.tensor(f"mask/{name}")[row] if f"mask/{name}" in probed.names else None
        area = values.get((number, seed, f"auc.{name}"))
        soft = heat(probed.tensor(f"map/{name}")[row], image.shape[-2:])
        note = "" if area is None else f"AUC {area:.2f}"
        images.append(inline_image(soft, f"{name}, {note}", mask=predicted, note=note))
    return ImageRow(about["text"], about["kind"], about["shape"], images)
