"""What an evaluation logs besides numbers: images, masks, histograms and a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from afterglow import keys
from afterglow.analysis.summary import ALL_SEEDS
from afterglow.attention_names import layer_sets
from afterglow.evaluation.measurements import EvaluationResult
from afterglow.measures.bright_ending import end_token_map

TABLE_MEASURES = (
    "memorized",
    "calibrated_l2",
    "distance",
    "nn_ratio",
    "correlation",
    "guidance_norm.all",
    "ld.be.all",
    "end_token_mean.be",
)
_HISTOGRAM_KINDS = {"global": ("global",), "local": ("local",), "none": ("phantom", "control", "heldout")}


def log_media(logger: Any, result: EvaluationResult, step: int, *, maps: Sequence[str] | None) -> None:
    """Log samples of every kind, masks of local plants and end-token histograms.

    Args:
        logger: RunLogger.
        result: the evaluation of a training step.
        step: that step.
        maps: maps whose masks are logged; None: all, and the table of the whole evaluation.
    """
    generations = result.generations
    first = [row for row in range(len(generations)) if int(generations.seed[row]) == 0 or generations.kind[row] == "unprompted"]
    for kind in dict.fromkeys(generations.kind[row] for row in first):
        rows = [row for row in first if generations.kind[row] == kind]
        logger.log_images(keys.samples(kind), generations.images[rows].numpy(), [generations.caption[row] for row in rows], step)
    local = [row for row in result.rows_of("local") if int(generations.seed[row]) == 0]  # one seed: W&B stores a file per mask
    for name in result.thresholds if maps is None else [name for name in maps if name in result.thresholds]:
        masks = {"planted": generations.planted_mask[local, 0].numpy(), "predicted": result.mask(name)[local].numpy()}
        logger.log_masks(keys.masks(name), generations.images[local].numpy(), masks, [generations.caption[row] for row in local], step)
    for kind, kinds in _HISTOGRAM_KINDS.items():
        if generations.layers and (members := result.rows_of(*kinds)):
            sets = layer_sets(generations.layers)
            values = end_token_map(generations[members], sets.get("be", sets["all"])).numpy()
            logger.log_histogram(keys.end_token(kind), values, step)
    if maps is None:
        logger.log_rows(keys.EVALUATION_TABLE, *evaluation_table(result), step=step)


def evaluation_table(result: EvaluationResult) -> tuple[dict[str, list[Any]], list[np.ndarray], list[np.ndarray]]:
    """The table of an evaluation, one row per target.

    Returns:
        columns with means over the seeds; images of each row (its reference, then its generations, [1 + seeds, C, H, W]); planted masks.
    """
    generations, measured = result.generations, result.measurements
    assert generations.plant_id is not None
    means = measured[measured["seed"] != ALL_SEEDS].pivot_table(index="plant_id", columns="measure", values="value")
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(generations.plant_id.tolist()):
        rows.setdefault(number, []).append(row)
    first = [row[0] for row in rows.values()]
    columns: dict[str, list[Any]] = {"plant_id": list(rows)}
    columns |= {name: [getattr(generations, name)[row] for row in first] for name in ("kind", "shape", "caption")}
    columns |= {"seeds": [len(row) for row in rows.values()]}
    columns |= {name: means.loc[list(rows), name].tolist() for name in TABLE_MEASURES if name in means}
    references = generations.images if generations.references is None else generations.references
    images = [torch.cat([references[row[:1]], generations.images[row]]).numpy() for row in rows.values()]
    return columns, images, list(generations.planted_mask[first, 0].numpy())
