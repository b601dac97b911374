"""What of a probe goes to the tracker as images, masks, tables and histograms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.result import EvaluationResult
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


def show(logger: Any, look: EvaluationResult, rows: pd.DataFrame, step: int, *, maps: Sequence[str] | None) -> None:
    """Samples of every kind, masks of local plants for the named maps (None = all, with the table of the whole probe)."""
    generations = look.generations
    first_seed = [row for row in range(len(generations)) if int(generations.seed[row]) == 0 or generations.kind[row] == "unprompted"]
    captions = [f"{generations.kind[row]}: {generations.caption[row]}" for row in first_seed]
    logger.log_images("media/samples", generations.images[first_seed].numpy(), captions, step)
    local = [row for row in look.rows_of("local") if int(generations.seed[row]) == 0]  # one seed: the tracker keeps a file for each mask
    for name in look.thresholds if maps is None else [name for name in maps if name in look.thresholds]:
        masks = {"planted": generations.eval_mask[local, 0].numpy(), "predicted": look.mask(name)[local].numpy()}  # type: ignore[index]
        logger.log_masks(f"media/masks/{name}", generations.images[local].numpy(), masks, [generations.caption[row] for row in local], step)
    for kind, chosen in (("global", ("global",)), ("local", ("local",)), ("none", ("phantom", "control", "heldout"))):
        members = look.rows_of(*chosen)
        for name, layers in layer_sets(generations.layers).items() if members else ():
            if name in ("be", "all"):
                logger.log_histogram(f"media/end_token_{name}/{kind}", end_token_map(generations[members], layers).numpy(), step)
    if maps is None:
        logger.log_rows("tables/probe", *table(look, rows), step=step)


def table(look: EvaluationResult, rows: pd.DataFrame) -> tuple[dict[str, list[Any]], np.ndarray, dict[str, np.ndarray]]:
    """Columns, images and planted masks of the table of a probe: one row a generation."""
    generations = look.generations
    assert generations.plant_id is not None and generations.eval_mask is not None
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
    return columns, generations.images.numpy(), {"planted": generations.eval_mask[:, 0].numpy()}
