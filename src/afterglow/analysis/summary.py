"""What the rows of one probe amount to: the numbers that W&B, the page and emergence.json show, made in one place.

Rows are tidy: step, epoch, seconds, plant_id, kind, caption, seed, measure, value. A row with seed -1 is of all seeds of a plant.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import sklearn

from afterglow.analysis.roc import detection
from afterglow.measures.registry import is_detector

ALL_SEEDS = -1
COLUMNS = ["step", "epoch", "seconds", "plant_id", "kind", "caption", "seed", "measure", "value"]
POSITIVES = ("global", "local", "natural")
NEGATIVES = ("phantom", "control", "decoy", "tint")


def read_measurements(path: Path) -> pd.DataFrame:
    """The rows of a parquet file. Values are written in single precision and reckoned with in double, wherever they are read."""
    return pd.read_parquet(path).astype({"value": np.float64})


def of_plants(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds: kind, measure, plant_id => value."""
    return rows.groupby(["kind", "measure", "plant_id"], sort=True)["value"].mean().reset_index()


def summarize(rows: pd.DataFrame) -> dict[str, float]:
    """{W&B key: number} of one probe: means over plants, memorized fractions, localization and detection."""
    plants = of_plants(rows)
    found: dict[str, float] = {}
    for (kind, name), value in plants.groupby(["kind", "measure"], sort=True)["value"].mean().items():
        found[f"measure/{kind}/{name}"] = float(value)
        if name == "plant_memorized":
            found[f"memorized/{kind}"] = float(value)
        elif name.startswith(("auc.", "iou.")):
            what, _, which = name.partition(".")
            found[f"localization/{which}/{what if kind == 'local' else f'{what}_{kind}'}"] = float(value)
    return found | detections(rows, plants)


def detections(rows: pd.DataFrame, plants: pd.DataFrame) -> dict[str, float]:
    """Two label sets, never mixed: planted against each kind of negative, and memorized generations against all others."""
    found: dict[str, float] = {}
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # hundreds of small curves a probe
        _detections(rows, plants, found)
    return found


def _detections(rows: pd.DataFrame, plants: pd.DataFrame, found: dict[str, float]) -> None:
    for name in [name for name in plants["measure"].unique() if is_detector(name)]:
        scores = plants[plants["measure"] == name].groupby("kind")["value"].apply(np.asarray)
        for positive in [kind for kind in POSITIVES if kind in scores]:
            for negative in [kind for kind in NEGATIVES if kind in scores]:
                for what, value in detection(scores[positive], scores[negative]).items():
                    found[f"detection/{name}.{positive}_vs_{negative}/{what}"] = value
        for what, value in _memorized_against_rest(rows, name).items():
            found[f"detection/{name}.memorized_vs_rest/{what}"] = value


def _memorized_against_rest(rows: pd.DataFrame, name: str) -> dict[str, float]:
    """Over generations of every kind: plants that are not memorized yet are among the negatives."""
    wide = rows[rows["measure"].isin([name, "memorized"])].pivot(index=["plant_id", "seed"], columns="measure", values="value")
    copied = wide["memorized"].to_numpy() > 0.5
    return detection(wide[name].to_numpy()[copied], wide[name].to_numpy()[~copied]) if 0 < copied.sum() < len(copied) else {}
