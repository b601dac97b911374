"""What a remedy did: the same captions and seeds with and without it, plant by plant."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from afterglow.evidence import Evidence
from afterglow.measures import memorized
from afterglow.measures.statistics import bootstrap_interval, wilson_interval
from afterglow.measures.table import COPIES, SIMILARITIES, measure

FRACTIONS = ("memorized", "local_to_global")  # 0 or 1 for each plant
UNTOUCHED = "none"
KEYS = ["remedy", "strength", "kind", "measure"]


def plant_rows(evidence: Evidence) -> pd.DataFrame:
    """Kind, plant_id, measure, value: one number for each plant (or caption) and measure; what cannot be measured has no row.

    memorized: half of the seeds are (METHODS section 4); inside and outside a mask: distance and correlation to the planted picture.
    A held-out caption has no picture: its distance is that to the nearest training picture. Costs are of all kinds together.
    """
    assert evidence.plant_id is not None
    found = measure(evidence, [*COPIES[:2], COPIES[-2], COPIES[-1], SIMILARITIES[0]])
    named = {"distance": "distance.inside", "correlation": "correlation.inside"}
    values = {named.get(name, name): value for name, value in found.items()} | _outside(evidence)
    values |= {name: value for name, value in evidence.derived.items() if value.ndim == 1 and name.startswith(NOTED)}
    rows = []
    for number in evidence.plant_id.unique().tolist():
        mine = (evidence.plant_id == number).nonzero()[:, 0]
        about = {"kind": evidence.kind[int(mine[0])], "plant_id": number}
        each = {name: _of_plant(name, value[mine]) for name, value in values.items() if name not in COSTS}
        each |= _copied_whole(evidence[mine.tolist()])
        each = {HELD_OUT.get(name, name): v for name, v in each.items() if name in HELD_OUT} if about["kind"] == "heldout" else each
        rows += [about | {"measure": name, "value": value} for name, value in each.items() if not np.isnan(value)]
        rows += [about | {"kind": "all", "measure": name, "value": float(values[name][mine].mean())} for name in COSTS if name in values]
    return pd.DataFrame(rows)


NOTED = ("cost.", "remedy.", "caption_agreement")
COSTS = ("cost.seconds", "cost.evaluations")
HELD_OUT = {"distance.inside": "distance.training", "caption_agreement": "caption_agreement"}  # what a held-out caption is measured by
GRID = 4  # cells a side of the pixel features


def _of_plant(name: str, values: Tensor) -> float:
    return memorized.plant_memorized(values) if name == "memorized" else float(values.nanmean())


def _outside(evidence: Evidence) -> dict[str, Tensor]:
    """Distance and correlation to the planted picture outside the mask, [B]; NaN for a mask that has no outside."""
    if evidence.references is None or evidence.planted_mask is None:
        return {}
    inverse = replace(evidence, planted_mask=~evidence.planted_mask)
    whole = evidence.planted_mask.flatten(1).all(1)
    values = {"distance.outside": memorized.plain_distance(inverse), "correlation.outside": memorized.masked_correlation(inverse)}
    return {name: value.masked_fill(whole, torch.nan) for name, value in values.items()}


def _copied_whole(plant: Evidence) -> dict[str, float]:
    """local_to_global of one local plant, with its outside diversity."""
    if plant.kind[0] not in ("local", "natural") or len(plant) < 2 or "variant_spread" not in plant.derived:
        return {}
    return {"local_to_global": memorized.local_to_global(plant), "outside_diversity": memorized.outside_diversity(plant)}


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of features [N, D] and [M, D] (Heusel et al. 2017). Biased for few pictures."""
    first, second = first.double(), second.double()
    covariances = first.T.cov(), second.T.cov()
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float((first.mean(0) - second.mean(0)).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * root)


def remedied_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over plants with its 95 % interval (Wilson for fractions, else bootstrap), and the mean change against none, paired by plant.

    rows: remedy, strength, kind, plant_id, measure, value. Columns: KEYS, value, low, high, change, change_low, change_high, plants.
    """
    before = rows[rows["remedy"] == UNTOUCHED].set_index(["kind", "plant_id", "measure"])["value"]
    found = []
    for key, some in rows.groupby(KEYS, sort=False):
        values = some["value"].to_numpy()
        low, high = wilson_interval(values.sum(), len(values)) if key[-1] in FRACTIONS else bootstrap_interval(values)
        paired = before.reindex(pd.MultiIndex.from_frame(some[["kind", "plant_id", "measure"]])).to_numpy()
        changes = (values - paired)[~np.isnan(paired)]
        change = (changes.mean(), *bootstrap_interval(changes)) if len(changes) else (np.nan,) * 3
        found.append((*key, values.mean(), low, high, *change, len(values)))
    return pd.DataFrame(found, columns=[*KEYS, "value", "low", "high", "change", "change_low", "change_high", "plants"])


def pictures_only(evidence: Evidence) -> Evidence:
    """The same without what was recorded step by step, which no row here reads."""
    return replace(evidence, guidance=None, guidance_rms=None, end_attention=None, token_attention=None)


def remedied_rows(remedy: str, strength: float, evidence: Sequence[Evidence], pictures: Mapping[str, Tensor]) -> pd.DataFrame:
    """All rows of one collection; pictures: as in frechet_distances."""
    rows = [plant_rows(part).assign(remedy=remedy, strength=strength) for part in evidence]
    distances = frechet_distances(evidence, pictures)
    return pd.concat([*rows, *(number_row(remedy, strength, name, value, "heldout") for name, value in distances.items())])


def number_row(remedy: str, strength: float, name: str, value: float, kind: str = "all") -> pd.DataFrame:
    """A number of a whole collection, which is no mean over plants."""
    return pd.DataFrame([{"kind": kind, "plant_id": -1, "measure": name, "value": value, "remedy": remedy, "strength": strength}])


def frechet_distances(evidence: Sequence[Evidence], pictures: Mapping[str, Tensor]) -> dict[str, float]:
    """{frechet.<features>: distance} of the generations for held-out captions to the held-out pictures.

    pictures: features of the held-out pictures, [M, D], by name: 'pixels4', or an encoder's whose features the evidence holds.
    Absent with fewer than two pictures on a side.
    """
    found = {}
    for name, real in pictures.items():
        drawn = torch.cat(
            [_held_out(part, pixel_features(part.images) if name == PIXELS else part.derived["features"]) for part in evidence]
        )
        if min(len(drawn), len(real)) > 1:
            found[f"frechet.{name}"] = frechet_distance(drawn, real)
    return found


PIXELS = f"pixels{GRID}"


def pixel_features(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] => means of 4 x 4 cells in [0, 1], [B, 16 C]: features without an encoder, of colours and coarse shapes."""
    return adaptive_avg_pool2d(images.float() / 255, GRID).flatten(1)


def _held_out(evidence: Evidence, features: Tensor) -> Tensor:
    return features[[row for row, kind in enumerate(evidence.kind) if kind == "heldout"]]
