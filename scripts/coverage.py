"""Experiment E7 of docs/findings/plan.md: are sparse or prototypical images memorized first, on the committed runs of E1?

  AFTERGLOW_DATA=DIR python scripts/coverage.py

Prints Kendall's tau-a between emergence and neighborhood for each set and over all sets and seeds, with t intervals over seeds.
"""

import os
from collections.abc import Sequence
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.sources import load_images
from afterglow.files import read_yaml
from afterglow.functional.distances import masked_contrast
from afterglow.functional.pixels import to_unit
from afterglow.functional.statistics import t_interval
from afterglow.neighbors.gallery import tile_masks
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.reports.tables import interval_text, text_table

RUNS = Path(__file__).resolve().parents[1] / "docs" / "findings" / "photographs"
DATA_FOLDERS = {"cifar10": "cifar", "celeba": "celeba_64", "flowers102": "flowers102_64"}
RULES = {"calibrated": ("calibrated_l2", lambda value: value < 1), "correlation": ("correlation", lambda value: value >= 0.9)}
QUANTITIES = ("sparsity", "rarity of parts", "sparsity / contrast")
NUM_SHUFFLES = 500
GRID, NUM_NEIGHBORS = 4, 50


@cache
def images_of(dataset: str, resolution: int) -> CaptionedImages:
    """A set of photographs, read once from the folder that AFTERGLOW_DATA names."""
    folder = Path(os.environ["AFTERGLOW_DATA"]) / DATA_FOLDERS[dataset]
    return load_images(dataset, resolution=resolution, channels=3, data_dir=str(folder))


def planted_set(run: Path) -> PlantedSet:
    """The training set of a committed run."""
    config = read_yaml(run / "config.yaml")
    options = config["data"]["init_args"]
    more = {name: options.get(name, usual) for name, usual in (("skip_first", 0), ("one_per_cluster", False))}
    images = images_of(options["dataset"], options["resolution"])
    return plant_images(images, PlantingConfig(**options["planting"]), set_size=options["set_size"], seed=config["seed_everything"], **more)


def neighborhoods(planted: PlantedSet) -> pd.DataFrame:
    """One row per global plant, from the training set alone: plant_id, copies and QUANTITIES."""
    plants, gallery = planted.of_kind("global"), planted.gallery()
    images = torch.from_numpy(np.stack([planted.pixels[plant.members[0]] for plant in plants]))
    own, full = [{plant.cluster} for plant in plants], torch.ones(1, *images.shape[-2:], dtype=torch.bool)
    sparsity = gallery.nearest(images, full, own, num_clusters=NUM_NEIGHBORS).distances.mean(1)
    parts = [gallery.nearest(images, mask, own, num_clusters=1).distances[:, 0] for mask in tile_masks(images.shape[-1], GRID)]
    contrast = masked_contrast(to_unit(images), full)
    columns = {"sparsity": sparsity, "rarity of parts": torch.stack(parts).mean(0), "sparsity / contrast": sparsity / contrast}
    about = {"plant_id": [plant.plant_id for plant in plants], "copies": [plant.copies for plant in plants]}
    return pd.DataFrame(about | {name: values.numpy() for name, values in columns.items()})


def emergence(rows: pd.DataFrame, rule: str) -> pd.Series:
    """Step from which each plant is memorized at every later evaluation, by plant_id; infinite if it is not at the last."""
    measure, test = RULES[rule]
    own = rows[(rows["measure"] == measure) & (rows["kind"] == "global") & (rows["seed"] >= 0)]
    memorized = test(own["value"]).groupby([own["plant_id"], own["step"]]).mean().unstack() >= 0.5
    stays = memorized.iloc[:, ::-1].cummin(axis=1).iloc[:, ::-1]
    steps = np.array(stays.columns, dtype=float)
    return stays.apply(lambda of_plant: steps[np.argmax(of_plant)] if of_plant.any() else np.inf, axis=1)


def concordance(table: pd.DataFrame, quantity: str, rule: str) -> tuple[int, int]:
    """Concordant minus discordant pairs of plants of one run with the same number of copies, and the number of pairs."""
    total = pairs = 0
    for _, part in table.groupby("copies"):
        for (x, later), (y, than) in combinations(part[[quantity, rule]].itertuples(index=False, name=None), 2):
            total += int(np.sign(x - y)) * (int(later > than) - int(later < than))
            pairs += 1
    return total, pairs


def run_table(run: Path) -> pd.DataFrame:
    """Neighborhoods and emergence of one run's global plants."""
    table = neighborhoods(planted_set(run))
    rows = pd.read_parquet(run / "measurements.parquet").astype({"value": float})
    return table.assign(**{rule: table["plant_id"].map(emergence(rows, rule)) for rule in RULES})


def tau(tables: Sequence[pd.DataFrame], quantity: str, rule: str) -> float:
    """Tau-a over the pairs of both arms of one set and seed."""
    totals, counts = zip(*(concordance(table, quantity, rule) for table in tables), strict=True)
    return sum(totals) / sum(counts)


def shuffled_taus(cells: Sequence[Sequence[pd.DataFrame]], rule: str) -> np.ndarray:
    """The mean tau over cells when sparsity is shuffled within each run and number of copies, [NUM_SHUFFLES]."""
    generator, means = np.random.default_rng(0), []
    for _ in range(NUM_SHUFFLES):
        taus = []
        for tables in cells:
            shuffled = [table.groupby("copies")["sparsity"].transform(generator.permutation) for table in tables]
            taus.append(tau([table.assign(sparsity=own) for table, own in zip(tables, shuffled, strict=True)], "sparsity", rule))
        means.append(np.mean(taus))
    return np.array(means)


def main() -> None:
    """Print one line per quantity and rule of emergence, with a column for each set, and the control."""
    names = sorted({run.name.rsplit("-", 1)[0] for run in RUNS.glob("photographs-*-0")})
    cells = {name: [run_table(run) for run in sorted(RUNS.glob(f"{name}-*"))] for name in names}
    sets = sorted({name.split("-")[1] for name in names})
    rows = []
    for quantity, rule in product(QUANTITIES, RULES):
        taus = {name: tau(tables, quantity, rule) for name, tables in cells.items()}
        by_set = [[value for name, value in taus.items() if name.split("-")[1] == one] for one in sets]
        rows.append([f"{quantity}, {rule}", *map(_text, (*by_set, list(taus.values())))])
    print(text_table(["tau-a with emergence", *sets, f"all {len(names)} sets and seeds"], rows))
    for rule in RULES:
        low, high = np.quantile(shuffled_taus(list(cells.values()), rule), (0.025, 0.975))
        print(f"Control, sparsity shuffled within run and copies, {rule}: 95 % of {NUM_SHUFFLES} means lie in [{low:+.2f}, {high:+.2f}].")


def _text(values: list[float]) -> str:
    return interval_text(t_interval(values), "+.2f")


if __name__ == "__main__":
    main()
