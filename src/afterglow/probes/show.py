"""What of a probe goes to the tracker as pictures, masks, tables and histograms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from afterglow.measures.end_token import end_token_map, layer_sets
from afterglow.measures.summary import ALL_SEEDS
from afterglow.probes.look import Look

TABLE_MEASURES = ("memorized", "calibrated", "distance", "ratio", "correlation", "magnitude.all", "ld.be.all", "brightness.be")


def show(logger: Any, look: Look, rows: pd.DataFrame, step: int, *, maps: Sequence[str] | None) -> None:
    """Samples of every kind, masks of local plants for the named maps (None = all, with the table of the whole probe)."""
    evidence = look.evidence
    first_seed = [row for row in range(len(evidence)) if int(evidence.seed[row]) == 0 or evidence.kind[row] == "unprompted"]
    captions = [f"{evidence.kind[row]}: {evidence.caption[row]}" for row in first_seed]
    logger.log_pictures("media/samples", evidence.images[first_seed].numpy(), captions, step)
    local = [row for row in look.rows_of("local") if int(evidence.seed[row]) == 0]  # one seed: the tracker keeps a file for each mask
    for name in look.thresholds if maps is None else [name for name in maps if name in look.thresholds]:
        masks = {"planted": evidence.planted_mask[local, 0].numpy(), "predicted": look.mask(name)[local].numpy()}  # type: ignore[index]
        logger.log_masks(f"media/masks/{name}", evidence.images[local].numpy(), masks, [evidence.caption[row] for row in local], step)
    for kind, chosen in (("global", ("global",)), ("local", ("local",)), ("none", ("phantom", "control", "heldout"))):
        members = look.rows_of(*chosen)
        for name, layers in layer_sets(evidence.layers).items() if members else ():
            if name in ("be", "all"):
                logger.log_histogram(f"media/end_token_{name}/{kind}", end_token_map(evidence[members], layers).numpy(), step)
    if maps is None:
        logger.log_rows("tables/probe", *table(look, rows), step=step)


def table(look: Look, rows: pd.DataFrame) -> tuple[dict[str, list[Any]], np.ndarray, dict[str, np.ndarray]]:
    """Columns, pictures and planted masks of the table of a probe: one row a generation."""
    evidence = look.evidence
    assert evidence.plant_id is not None and evidence.planted_mask is not None
    numbers = rows[rows["seed"] != ALL_SEEDS].pivot_table(index=["plant_id", "seed"], columns="measure", values="value")
    keys = list(zip(evidence.plant_id.tolist(), evidence.seed.tolist(), strict=True))
    columns: dict[str, list[Any]] = {
        "plant_id": [number for number, _ in keys],
        "seed": [seed for _, seed in keys],
        "kind": list(evidence.kind),
        "shape": list(evidence.shape),
        "caption": list(evidence.caption),
    }
    columns |= {name: numbers.loc[keys, name].tolist() for name in TABLE_MEASURES if name in numbers}
    return columns, evidence.images.numpy(), {"planted": evidence.planted_mask[:, 0].numpy()}
