"""What a mitigation did: the same captions and seeds with and without it, plant by plant."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from afterglow.functional.statistics import bootstrap_interval, wilson_interval
from afterglow.generations import Generations
from afterglow.measures import memorized
from afterglow.measures.registry import COPIES, SIMILARITIES, measure

FRACTIONS = ("memorized", "local_to_global")  # 0 or 1 for each plant
BASELINE = "none"
KEYS = ["mitigation", "strength", "kind", "measure"]


def plant_rows(generations: Generations) -> pd.DataFrame:
    """Kind, plant_id, measure, value: one number for each plant (or caption) and measure; what cannot be measured has no row.

    memorized: half of the seeds are (METHODS section 4); inside and outside a mask: distance and correlation to the planted image.
    A held-out caption has no image: its distance is that to the nearest training image. Costs are of all kinds together.
    """
    assert generations.plant_id is not None
    found = measure(generations, [*COPIES[:2], COPIES[-2], COPIES[-1], SIMILARITIES[0]])
    named = {"distance": "distance.inside", "correlation": "correlation.inside"}
    values = {named.get(name, name): value for name, value in found.items()} | _outside(generations)
    values |= {name: value for name, value in generations.extras.items() if value.ndim == 1 and name.startswith(NOTED)}
    rows = []
    for number in generations.plant_id.unique().tolist():
        mine = (generations.plant_id == number).nonzero()[:, 0]
        about = {"kind": generations.kind[int(mine[0])], "plant_id": number}
        each = {name: _of_plant(name, value[mine]) for name, value in values.items() if name not in COSTS}
        each |= _copied_whole(generations[mine.tolist()])
        each = {HELD_OUT.get(name, name): v for name, v in each.items() if name in HELD_OUT} if about["kind"] == "heldout" else each
        rows += [about | {"measure": name, "value": value} for name, value in each.items() if not np.isnan(value)]
        rows += [about | {"kind": "all", "measure": name, "value": float(values[name][mine].mean())} for name in COSTS if name in values]
    return pd.DataFrame(rows)


NOTED = ("cost.", "mitigation.", "caption_agreement")
COSTS = ("cost.seconds", "cost.evaluations")
HELD_OUT = {"distance.inside": "distance.training", "caption_agreement": "caption_agreement"}  # what a held-out caption is measured by
GRID = 4  # cells a side of the pixel features


def _of_plant(name: str, values: Tensor) -> float:
    return memorized.plant_memorized(values) if name == "memorized" else float(values.nanmean())


def _outside(generations: Generations) -> dict[str, Tensor]:
    """Distance and correlation to the planted image outside the mask, [B]; NaN for a mask that has no outside."""
    if generations.references is None or generations.eval_mask is None:
        return {}
    inverse = replace(generations, eval_mask=~generations.eval_mask)
    whole = generations.eval_mask.flatten(1).all(1)
    values = {"distance.outside": memorized.plain_distance(inverse), "correlation.outside": memorized.masked_correlation(inverse)}
    return {name: value.masked_fill(whole, torch.nan) for name, value in values.items()}


def _copied_whole(plant: Generations) -> dict[str, float]:
    """local_to_global of one local plant, with its outside diversity."""
    if plant.kind[0] not in ("local", "natural") or len(plant) < 2 or "background_spread" not in plant.extras:
        return {}
    return {"local_to_global": memorized.local_to_global(plant), "outside_diversity": memorized.outside_diversity(plant)}


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of features [N, D] and [M, D] (Heusel et al. 2017). Biased for few images."""
    first, second = first.double(), second.double()
    covariances = first.T.cov(), second.T.cov()
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float((first.mean(0) - second.mean(0)).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * root)


def mitigation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over plants with its 95 % interval (Wilson for fractions, else bootstrap), and the mean change against none, paired by plant.

    rows: mitigation, strength, kind, plant_id, measure, value. Columns: KEYS, value, low, high, change, change_low, change_high, plants.
    """
    before = rows[rows["mitigation"] == BASELINE].set_index(["kind", "plant_id", "measure"])["value"]
    found = []
    for key, some in rows.groupby(KEYS, sort=False):
        values = some["value"].to_numpy()
        low, high = wilson_interval(values.sum(), len(values)) if key[-1] in FRACTIONS else bootstrap_interval(values)
        paired = before.reindex(pd.MultiIndex.from_frame(some[["kind", "plant_id", "measure"]])).to_numpy()
        changes = (values - paired)[~np.isnan(paired)]
        change = (changes.mean(), *bootstrap_interval(changes)) if len(changes) else (np.nan,) * 3
        found.append((*key, values.mean(), low, high, *change, len(values)))
    return pd.DataFrame(found, columns=[*KEYS, "value", "low", "high", "change", "change_low", "change_high", "plants"])


def images_only(generations: Generations) -> Generations:
    """The same without what was recorded step by step, which no row here reads."""
    return replace(generations, guidance=None, guidance_rms=None, end_attention=None, token_attention=None)


def mitigation_rows(mitigation: str, strength: float, generations: Sequence[Generations], images: Mapping[str, Tensor]) -> pd.DataFrame:
    """All rows of one collection; images: as in frechet_distances."""
    rows = [plant_rows(part).assign(mitigation=mitigation, strength=strength) for part in generations]
    distances = frechet_distances(generations, images)
    return pd.concat([*rows, *(number_row(mitigation, strength, name, value, "heldout") for name, value in distances.items())])


def number_row(mitigation: str, strength: float, name: str, value: float, kind: str = "all") -> pd.DataFrame:
    """A number of a whole collection, which is no mean over plants."""
    return pd.DataFrame([{"kind": kind, "plant_id": -1, "measure": name, "value": value, "mitigation": mitigation, "strength": strength}])


def frechet_distances(generations: Sequence[Generations], images: Mapping[str, Tensor]) -> dict[str, float]:
    """{frechet.<features>: distance} of the generations for held-out captions to the held-out images.

    images: features of the held-out images, [M, D], by name: 'pixels4', or an encoder's whose features the generations holds.
    Absent with fewer than two images on a side.
    """
    found = {}
    for name, real in images.items():
        drawn = torch.cat(
            [_held_out(part, pixel_features(part.images) if name == PIXELS else part.extras["features"]) for part in generations]
        )
        if min(len(drawn), len(real)) > 1:
            found[f"frechet.{name}"] = frechet_distance(drawn, real)
    return found


PIXELS = f"pixels{GRID}"


def pixel_features(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] => means of 4 x 4 cells in [0, 1], [B, 16 C]: features without an encoder, of colors and coarse shapes."""
    return adaptive_avg_pool2d(images.float() / 255, GRID).flatten(1)


def _held_out(generations: Generations, features: Tensor) -> Tensor:
    return features[[row for row, kind in enumerate(generations.kind) if kind == "heldout"]]
