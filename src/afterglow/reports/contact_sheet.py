"""Plants of a run as one image: the plant, its mask, generations, and the map of the score difference."""

from pathlib import Path

import numpy as np
from PIL import Image

from afterglow.errors import AfterglowError
from afterglow.reports.figures import new_figure
from afterglow.reports.run import EvaluationFile

MAP = "score_difference.summed"
NUM_SEEDS = 4
NUM_PLANTS = 4  # of each kind


def write_contact_sheet(folder: Path, path: Path) -> Path:
    """Write a PNG of the last evaluation of a run, one row per plant: the first global and the first local ones.

    Returns:
        The path.

    Raises:
        AfterglowError: the run has no evaluated global or local plants.
    """
    files = sorted((folder / "maps").glob("step=*.safetensors"), key=lambda file: int(file.stem.partition("=")[2]))
    plants = [plant for kind in ("global", "local") for plant in sorted((folder / "plants").glob(f"*_{kind}_0.png"))[:NUM_PLANTS]]
    if not files or not plants:
        raise AfterglowError(f"There is nothing to show in '{folder}': it has no saved evaluation or no global or local plant.")
    evaluation = EvaluationFile(files[-1])
    maps = evaluation.tensor(f"map/{MAP}") if f"map/{MAP}" in evaluation.names else None
    titles = ["plant", "mask", *(f"seed {seed}" for seed in range(NUM_SEEDS)), *(["score difference"] if maps is not None else [])]
    figure = new_figure(1.05 * len(titles), 1.05 * len(plants) + 0.3)
    cells = figure.subplots(len(plants), len(titles), squeeze=False)
    for line, plant in zip(cells, plants, strict=True):
        number, kind = int(plant.name.split("_")[0]), plant.name.split("_")[1]
        rows = [evaluation.row[number, seed] for seed in evaluation.seeds(number)[:NUM_SEEDS]]
        columns = [
            np.asarray(Image.open(plant)),
            evaluation.tensor("region")[rows[0], 0],
            *(_pixels(evaluation.images[row]) for row in rows),
        ]
        columns += [maps[rows].astype(float).mean(0)] if maps is not None else []
        for axes, values in zip(line, columns, strict=False):
            axes.imshow(values, cmap="gray" if values.dtype == bool else "magma", vmin=0, interpolation="nearest")
        line[0].set_ylabel(kind, fontsize=8)
    for axes in cells.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="#bbbbbb", linewidth=0.5)
    for axes, title in zip(cells[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)
    return path


def _pixels(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0) if len(image) == 3 else image[0]
