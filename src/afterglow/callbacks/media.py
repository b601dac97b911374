"""What an evaluation logs besides numbers: images, masks, histograms and a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from afterglow import keys
from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.measurements import EvaluationResult
from afterglow.measures.bright_ending import end_token_map, layer_sets

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


def log_media(logger: Any, result: EvaluationResult, step: int, *, maps: Sequence[str] | None) -> None:
    """Log samples of every kind, masks of local plants and end-token histograms.

    Args:
        logger: RunLogger.
        result: the evaluation.
        step: training step.
        maps: maps whose masks are logged; None: all, and the table of the whole evaluation.
    """
    generations = result.generations
    samples = [row for row in range(len(generations)) if int(generations.seed[row]) == 0 or generations.kind[row] == "unprompted"]
    captions = [f"{generations.kind[row]}: {generations.caption[row]}" for row in samples]
    logger.log_images(keys.SAMPLES, generations.images[samples].numpy(), captions, step)
    local = [row for row in result.rows_of("local") if int(generations.seed[row]) == 0]  # one seed: W&B stores a file per mask
    for name in result.thresholds if maps is None else [name for name in maps if name in result.thresholds]:
        masks = {"planted": generations.planted_mask[local, 0].numpy(), "predicted": result.mask(name)[local].numpy()}
        logger.log_masks(keys.masks(name), generations.images[local].numpy(), masks, [generations.caption[row] for row in local], step)
    for kind, kinds in (("global", ("global",)), ("local", ("local",)), ("none", ("phantom", "control", "heldout"))):
        members = result.rows_of(*kinds)
        if members and generations.layers:
            sets = layer_sets(generations.layers)
            values = end_token_map(generations[members], sets.get("be", sets["all"])).numpy()
            logger.log_histogram(keys.end_token(kind), values, step)
    if maps is None:
        logger.log_rows(keys.EVALUATION_TABLE, *evaluation_table(result), step=step)


def evaluation_table(result: EvaluationResult) -> tuple[dict[str, list[Any]], np.ndarray, dict[str, np.ndarray]]:
    """Columns, images and planted masks of the table of an evaluation, one row per generation."""
    generations, rows = result.generations, result.measurements
    assert generations.plant_id is not None
    numbers = rows[rows["seed"] != ALL_SEEDS].pivot_table(index=["plant_id", "seed"], columns="measure", values="value")
    keys = list(zip(generations.plant_id.tolist(), generations.seed.tolist(), strict=True))
    columns: dict[str, list[Any]] = {
        "plant_id": [number for number, _ in keys],
        "seed": [seed for _, seed in keys],
        "kind": list(generations.kind),
        "shape": list(generations.shape),
        "caption": list(generations.caption),
    }
    columns |= {name: numbers.loc[keys, name].tolist() for name in TABLE_MEASURES if name in numbers}
    return columns, generations.images.numpy(), {"planted": generations.planted_mask[:, 0].numpy()}
