"""Samples over training on a run's page: one row per plant, one column per evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afterglow.reports.images import LARGEST_EXACT, InlineImage, inline_image, read_pixels
from afterglow.reports.run import Run
from afterglow.reports.timeline import shown_steps

SAMPLED_PLANTS = {"global": 3, "local": 4, "natural": 2, "phantom": 4, "decoy": 2, "tint": 2}  # rows of each kind in the sample grid
NUM_WITHOUT_PLANTS = 8
MANY_COLUMNS = 12  # more columns are drawn smaller
Distances = Mapping[tuple[int, int, int], float]  # {(step, plant_id, seed): calibrated distance}


@dataclass(frozen=True)
class ImageRow:
    """Images of one plant; None where there is no image."""

    label: str
    kind: str
    remark: str
    images: Sequence[InlineImage | None]


@dataclass(frozen=True)
class Grid:
    """head names the columns of images."""

    head: Sequence[str]
    rows: Sequence[ImageRow]

    @property
    def side(self) -> int:
        """Width of an image on the screen in CSS pixels: larger for large images, smaller for many columns."""
        if any(image.width > LARGEST_EXACT for row in self.rows for image in row.images if image):
            return 96
        return 64 if len(self.head) <= MANY_COLUMNS else 48


def sample_grid(run: Run) -> Grid | None:
    """Reference image, the first seed at each shown evaluation, and the other seeds at the last one. None without saved images."""
    if not run.evaluations:
        return None
    last = run.evaluations[max(run.evaluations)]
    evaluated = dict.fromkeys(number for number, _ in last.row)
    numbers = _first_plants(run, evaluated) or list(evaluated)[:NUM_WITHOUT_PLANTS]
    num_seeds = max((len(last.seeds(number)) - 1 for number in numbers), default=0)
    distances = _distances(run)
    rows = [_sample_row(run, number, num_seeds, distances) for number in numbers]
    head = ["planted", *(f"step {step}" for step in shown_steps(run)), *(f"seed {seed + 1}" for seed in range(num_seeds))]
    if any(row.images[0] for row in rows):
        return Grid(head, rows)
    return Grid(head[1:], [ImageRow(row.label, row.kind, row.remark, row.images[1:]) for row in rows])


def _first_plants(run: Run, evaluated: Mapping[int, None]) -> list[int]:
    """Plants in the order of their numbers, whatever their outcome; half of the phantoms are global and half local."""
    chosen: list[int] = []
    for kind, count in SAMPLED_PLANTS.items():
        numbers = [number for number, plant in run.plants.items() if plant["kind"] == kind and number in evaluated]
        if kind == "phantom":
            whole = [number for number in numbers if run.plants[number]["shape"] == "whole"]
            numbers = whole[: count // 2] + [number for number in numbers if number not in whole][: count // 2]
        chosen += numbers[:count]
    return chosen


def _distances(run: Run) -> Distances:
    rows = run.rows_of("calibrated_l2", shown_steps(run))
    return dict(zip(zip(rows["step"], rows["plant_id"], rows["seed"], strict=True), rows["value"], strict=True))


def _sample_row(run: Run, number: int, num_seeds: int, distances: Distances) -> ImageRow:
    plant, last = run.plants.get(number), max(run.evaluations)
    images: list[InlineImage | None] = [None if plant is None else _reference(run, plant)]
    for step in shown_steps(run):
        seeds = run.evaluations[step].seeds(number)[:1]
        images += [_generation(run, (step, number, seed), distances) for seed in seeds] or [None]
    others = run.evaluations[last].seeds(number)[1:]
    images += [_generation(run, (last, number, seed), distances) for seed in others]
    images += [None] * (num_seeds - len(others))
    if plant is None:
        item = run.rows[run.rows["plant_id"] == number].iloc[0]
        return ImageRow(item["caption"] or f"generation {number}", item["kind"], "", images)
    copies = f"{plant['copies']} per epoch" if plant["copies"] else "never trained on"
    return ImageRow(plant["text"], plant["kind"], f"{plant['shape']}, {copies}", images)


def _generation(run: Run, key: tuple[int, int, int], distances: Distances) -> InlineImage:
    step, number, seed = key
    evaluation, distance = run.evaluations[step], distances.get(key)
    title = f"step {step}, seed {seed}" + ("" if distance is None else f", calibrated distance {distance:.3f}")
    return inline_image(evaluation.images[evaluation.row[number, seed]], title, copied=distance is not None and distance < 1)


def _reference(run: Run, plant: Mapping) -> InlineImage:
    """The planted image with its mask. A decoy or tint has no single image: an example, with the tinted region of a tint."""
    folder = run.folder / "plants"
    mask = read_pixels(folder / plant["mask_file_name" if plant["kind"] != "tint" else "region_file_name"])[0] > 127
    title = "an example" if plant["kind"] in ("decoy", "tint") else "the image, its mask outlined"
    return inline_image(read_pixels(folder / plant["file_name"]), title, mask=mask)
