"""Effect of a mitigation: the same captions and seeds with and without it, plant by plant."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.summary import CLUSTER_SIZE, with_families
from afterglow.functional.features import NUM_CELLS, frechet_distance, pixel_features
from afterglow.functional.statistics import Estimate, bootstrap, wilson_interval
from afterglow.generations import Generations
from afterglow.measures import memorized
from afterglow.measures.registry import COPY_MEASURES, SIMILARITIES, compute_measures

FRACTIONS = ("memorized", "local_to_global")  # 0 or 1 for each plant
BASELINE = "none"
KEYS = ["mitigation", "strength", "kind", "measure"]
EFFECTS = [m for m in (*COPY_MEASURES, SIMILARITIES[0]) if m.name in ("distance", "calibrated_l2", "correlation", "memorized", "sscd")]
REPORTED = ("cost.", "mitigation.", "caption_agreement")  # prefixes of the extras that are reported
AVERAGED_COSTS = ("cost.seconds", "cost.evaluations")
INSIDE_NAMES = {"distance": "distance.inside", "correlation": "correlation.inside"}
HELD_OUT_NAMES = {"distance.inside": "distance.training", "caption_agreement": "caption_agreement"}  # measures of a held-out caption
PIXELS = f"pixels{NUM_CELLS}"


def plant_effect_rows(generations: Generations) -> pd.DataFrame:
    """One number for each plant (or caption) and measure: kind, plant_id, measure, value. Undefined values have no row.

    memorized: at least half of the seeds are (docs/methods.md#memorized). Distance and correlation are taken inside and outside the
    mask. A held-out caption has no image: its distance is that to the nearest training image. Costs have the kind 'all'.
    """
    assert generations.plant_id is not None
    values = {INSIDE_NAMES.get(name, name): value for name, value in compute_measures(generations, EFFECTS).items()} | _outside(generations)
    values |= {name: value for name, value in generations.extras.items() if value.ndim == 1 and name.startswith(REPORTED)}
    rows = []
    for number in generations.plant_id.unique().tolist():
        members = (generations.plant_id == number).nonzero()[:, 0]
        columns = {"kind": generations.kind[int(members[0])], "plant_id": number}
        each = {name: float(value[members].nanmean()) for name, value in values.items() if name not in AVERAGED_COSTS}
        if "memorized" in each:
            each["memorized"] = memorized.plant_memorized(values["memorized"][members])
        each |= _copied_whole(generations[members.tolist()])
        if columns["kind"] == "control" and "cluster_size" in generations.extras:
            each[CLUSTER_SIZE] = float(generations.extras["cluster_size"][members[0]])
        if columns["kind"] == "heldout":
            each = {HELD_OUT_NAMES[name]: value for name, value in each.items() if name in HELD_OUT_NAMES}
        rows += [columns | {"measure": name, "value": value} for name, value in each.items() if not np.isnan(value)]
        costs = {name: float(values[name][members].mean()) for name in AVERAGED_COSTS if name in values}
        rows += [columns | {"kind": "all", "measure": name, "value": value} for name, value in costs.items()]
    return pd.DataFrame(rows)


def _outside(generations: Generations) -> dict[str, Tensor]:
    """Distance and correlation to the planted image outside the mask, [B]; NaN for a mask that has no outside."""
    if generations.references is None or generations.eval_mask is None:
        return {}
    inverse = replace(generations, eval_mask=~generations.eval_mask)
    whole = generations.eval_mask.flatten(1).all(1)
    values = {"distance.outside": memorized.reference_distance(inverse), "correlation.outside": memorized.correlation(inverse)}
    return {name: value.masked_fill(whole, torch.nan) for name, value in values.items()}


def _copied_whole(plant: Generations) -> dict[str, float]:
    """local_to_global of one local plant, and its outside diversity."""
    if plant.kind[0] not in ("local", "natural") or len(plant) < 2 or "background_spread" not in plant.extras:
        return {}
    return {"local_to_global": memorized.local_to_global(plant), "outside_diversity": memorized.outside_diversity(plant)}


def mitigation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over plants with its 95 % interval, and the mean change against the baseline, paired by plant.

    Intervals are Wilson's for fractions and bootstrap intervals otherwise. Columns: KEYS, value, low, high, change, change_low,
    change_high, plants. rows: mitigation, strength, kind, plant_id, measure, value; see `with_families`.
    """
    rows = with_families(rows)
    rows = rows[rows["measure"] != CLUSTER_SIZE]
    baseline = rows[rows["mitigation"] == BASELINE].set_index(["kind", "plant_id", "measure"])["value"]
    table = []
    for key, part in rows.groupby(KEYS, sort=False):
        values = part["value"].to_numpy()
        low, high = wilson_interval(values.sum(), len(values)) if key[-1] in FRACTIONS else _ends(bootstrap(values))
        paired = baseline.reindex(pd.MultiIndex.from_frame(part[["kind", "plant_id", "measure"]])).to_numpy()
        changes = (values - paired)[~np.isnan(paired)]
        change = (changes.mean(), *_ends(bootstrap(changes))) if len(changes) else (np.nan,) * 3
        table.append((*key, values.mean(), low, high, *change, len(values)))
    return pd.DataFrame(table, columns=[*KEYS, "value", "low", "high", "change", "change_low", "change_high", "plants"])


def _ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def images_only(generations: Generations) -> Generations:
    """The generations without what was recorded step by step, which no row here reads."""
    return replace(generations, guidance=None, guidance_rms=None, end_attention=None, token_attention=None)


def mitigation_rows(mitigation: str, strength: float, generations: Sequence[Generations], images: Mapping[str, Tensor]) -> pd.DataFrame:
    """All rows of one collection; images: as in `frechet_distances`."""
    rows = [plant_effect_rows(part).assign(mitigation=mitigation, strength=strength) for part in generations]
    distances = frechet_distances(generations, images)
    return pd.concat([*rows, *(number_row(mitigation, strength, name, value, "heldout") for name, value in distances.items())])


def number_row(mitigation: str, strength: float, name: str, value: float, kind: str = "all") -> pd.DataFrame:
    """A number of a whole collection, which is no mean over plants."""
    return pd.DataFrame([{"kind": kind, "plant_id": -1, "measure": name, "value": value, "mitigation": mitigation, "strength": strength}])


def frechet_distances(generations: Sequence[Generations], images: Mapping[str, Tensor]) -> dict[str, float]:
    """{'frechet.<features>': distance} between samples for held-out captions and held-out images; absent with fewer than two on a side.

    images: features of the held-out images, [M, D], by name: 'pixels4', or an encoder whose features the generations hold.
    """
    distances = {}
    for name, real in images.items():
        features = [(part, pixel_features(part.images) if name == PIXELS else part.extras["features"]) for part in generations]
        sampled = torch.cat([values[[kind == "heldout" for kind in part.kind]] for part, values in features])
        if min(len(sampled), len(real)) > 1:
            distances[f"frechet.{name}"] = frechet_distance(sampled, real)
    return distances
