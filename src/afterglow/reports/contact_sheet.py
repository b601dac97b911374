"""The local plants of a run as one image: what was planted, where, what the model paints, and what a map sees."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from afterglow.reports.run import Evaluation

MAP = "score_difference.summed"
NUM_SEEDS = 4


def write_contact_sheet(folder: Path, path: Path) -> Path:
    """PNG of the last probe: a row a local plant; its image, its mask, four generations, their mean summed score difference.

    Raises ValueError where the run has no probed local plants.
    """
    probes = sorted((folder / "maps").glob("step=*.safetensors"), key=lambda file: int(file.stem.partition("=")[2]))
    plants = sorted((folder / "plants").glob("*_local_0.png"))
    if not probes or not plants:
        raise ValueError(f"There is nothing to show in '{folder}': no probe, or no local plant.")
    probed = Evaluation(probes[-1])
    maps = probed.tensor(f"map/{MAP}") if f"map/{MAP}" in probed.names else None
    titles = ["image", "planted", *(f"seed {seed}" for seed in range(NUM_SEEDS)), *(["score difference"] if maps is not None else [])]
    figure = Figure(figsize=(1.05 * len(titles), 1.05 * len(plants) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(len(plants), len(titles), squeeze=False)
    for axes, plant in zip(cells, plants, strict=True):
        number = int(plant.name.split("_")[0])
        rows = [probed.row[number, seed] for seed in probed.seeds(number)[:NUM_SEEDS]]
        shown = [np.asarray(Image.open(plant)), probed.tensor("region")[rows[0], 0], *(_pixels(probed.images[row]) for row in rows)]
        shown += [maps[rows].astype(float).mean(0)] if maps is not None else []
        for cell, values in zip(axes, shown, strict=False):
            cell.imshow(values, cmap="gray" if values.dtype == bool else "magma", interpolation="nearest")
    for cell in cells.flat:
        cell.set_axis_off()
    for cell, title in zip(cells[0], titles, strict=True):
        cell.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)
    return path


def _pixels(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0) if len(image) == 3 else image[0]
