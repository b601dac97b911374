"""The numbers of one evaluation: means, memorized fractions, localization and detection, under their W&B keys.

Rows are tidy: step, epoch, seconds, plant_id, kind, caption, seed, measure, value. A row with seed -1 describes all seeds of a plant.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow import keys
from afterglow.errors import reading
from afterglow.files import read_parquet
from afterglow.functional.roc import detection_metrics
from afterglow.kinds import CONTROL_FAMILY, NEGATIVES, NOT_MEMORIZED, PLANTED
from afterglow.measures.registry import COPY_MEASURES, TRIVIAL_MAPS, is_detector

ALL_SEEDS, INVERTED, CLUSTER_SIZE = -1, ".inverted", "cluster_size"
MAP_PREFIXES = ("auc.", "permuted_auc.", "iou.")
NEAREST_CLUSTER = "nearest_cluster"  # a name, not a quantity: it has no mean
_OF_COPIES = rf"(?:ema_off\.|outpainted\.)?(?:plant_memorized|memorized_in|{'|'.join(measure.name for measure in COPY_MEASURES)})\b"
INVERTIBLE = tuple(measure.name for measure in TRIVIAL_MAPS if measure.name != "all_ones")  # the inversion of all_ones is itself
MEASUREMENT_COLUMNS = ["step", "epoch", "seconds", "plant_id", "kind", "caption", "seed", "measure", "value"]


def read_measurements(path: Path, columns: Sequence[str] = ("kind", "measure", "plant_id", "seed", "value")) -> pd.DataFrame:
    """Rows of a parquet file, which must have the columns. Values are stored in single precision and converted to double here."""
    table = read_parquet(path, columns)
    with reading(path, "measurements"):
        return table.astype({"value": np.float64})


def with_families(rows: pd.DataFrame, sizes: Mapping[int, int] | None = None) -> pd.DataFrame:
    """The rows; those that count copies of controls with near-duplicates in the training set have the kind `control_family`.

    A control whose cluster has k training images is shown k times per epoch: a copy of it is no false positive. Detectors keep all
    controls as negatives.

    Args:
        rows: measurements, of one run.
        sizes: {plant_id of a control: images of its cluster}; default: the rows of the measure cluster_size.
    """
    of_controls = rows["kind"].to_numpy() == "control"
    if sizes is None:
        known = rows[of_controls & (rows["measure"] == CLUSTER_SIZE).to_numpy()]
        sizes = dict(zip(known["plant_id"], known["value"], strict=True))
    families = of_controls & rows["plant_id"].isin([number for number, size in sizes.items() if size > 1]).to_numpy()
    families[families] = rows["measure"][families].str.match(_OF_COPIES).to_numpy(dtype=bool)
    return rows.assign(kind=rows["kind"].mask(families, CONTROL_FAMILY)) if families.any() else rows


def plant_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of one evaluation: columns kind, measure, plant_id, value; without the names of clusters, which have none.

    Maps of local plants that are not memorized have the kind NOT_MEMORIZED: they are never averaged with those that find copies.
    """
    rows = rows[rows["measure"] != NEAREST_CLUSTER]
    means = rows.groupby(["kind", "measure", "plant_id"], sort=True)["value"].mean().reset_index()
    missed = means[(means["measure"] == "plant_memorized") & (means["value"] < 0.5)]["plant_id"]
    of_maps = means["measure"].str.startswith(MAP_PREFIXES) & (means["kind"] == "local") & means["plant_id"].isin(missed)
    return means.assign(kind=means["kind"].mask(of_maps, NOT_MEMORIZED))


def with_inversions(means: pd.DataFrame) -> pd.DataFrame:
    """The same with rows of the inversions of trivial maps, whose AUC is 1 minus that of the map; means: see `plant_means`."""
    trivial = means[means["measure"].isin([f"auc.{name}" for name in INVERTIBLE])]
    return pd.concat([means, trivial.assign(measure=trivial["measure"] + INVERTED, value=1 - trivial["value"])], ignore_index=True)


def summarize_evaluation(rows: pd.DataFrame) -> dict[str, float]:
    """{W&B key: number} of the rows of one evaluation."""
    rows = with_families(rows)
    plants = plant_means(rows)
    numbers: dict[str, float] = {}
    for (kind, name), value in plants.groupby(["kind", "measure"], sort=True)["value"].mean().items():
        numbers[keys.measurement(str(kind), str(name))] = float(value)
    return numbers | detection_numbers(rows, plants)


def detection_numbers(rows: pd.DataFrame, plants: pd.DataFrame) -> dict[str, float]:
    """Two label sets, never mixed: planted against each kind of negative, and memorized samples against all others."""
    numbers: dict[str, float] = {}
    detectors = [name for name in plants["measure"].unique() if is_detector(name)]
    single = rows[rows["measure"].isin(["memorized", *detectors]) & (rows["seed"] != ALL_SEEDS)]
    samples = single.pivot(index=["plant_id", "seed"], columns="measure", values="value")
    for name in detectors:
        scores = plants[plants["measure"] == name].groupby("kind")["value"].apply(np.asarray)
        for positive in [kind for kind in PLANTED if kind in scores]:
            for negative in [kind for kind in NEGATIVES if kind in scores]:
                for metric, value in detection_metrics(scores[positive], scores[negative]).items():
                    numbers[keys.detection(name, f"{positive}_vs_{negative}", metric)] = value
        for metric, value in _memorized_against_rest(samples, name).items():
            numbers[keys.detection(name, "memorized_vs_rest", metric)] = value
    return numbers


def _memorized_against_rest(samples: pd.DataFrame, name: str) -> dict[str, float]:
    """Over samples of every kind; plants that are not memorized yet are among the negatives."""
    if name not in samples or "memorized" not in samples:
        return {}
    wide = samples[[name, "memorized"]].dropna()
    copied = wide["memorized"].to_numpy() > 0.5
    return detection_metrics(wide[name].to_numpy()[copied], wide[name].to_numpy()[~copied]) if 0 < copied.sum() < len(copied) else {}
