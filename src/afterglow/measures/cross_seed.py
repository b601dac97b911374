"""What the samples of one caption have in common (Carlini et al. 2023, Webster 2023): no training image and no model is needed."""

import pandas as pd
import torch
from torch import Tensor

from afterglow.functional.cross_seed import edge_consistency, edges, tiled_l2
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations


def rows_by_caption(generations: Generations) -> list[Tensor]:
    """Rows of each caption with several samples. A caption that belongs to two plants counts as two captions."""
    ids = generations.plant_id.tolist() if generations.plant_id is not None else [0] * len(generations)
    groups = pd.DataFrame({"id": ids, "caption": generations.caption}).groupby(["id", "caption"], sort=False).indices
    return [torch.from_numpy(rows) for rows in groups.values() if len(rows) > 1]


def tiled_similarity(generations: Generations, *, local: bool = False) -> Tensor:
    """Minus the tiled distance to the other samples of the same caption, [B]; NaN for a caption's only sample.

    docs/methods.md#tiled-l2. local: the smallest distance over tiles instead of the largest.
    """
    result = torch.full((len(generations),), torch.nan)
    for rows in rows_by_caption(generations):
        result[rows] = -tiled_l2(generations.images[rows], local=local)
    return result


def caption_edge_consistency(generations: Generations) -> Tensor:
    """Share of the pixels that are edges in more than half of a caption's samples, [B]; NaN for a caption's only sample.

    docs/methods.md#edge-consistency: memorized captions produce the same outlines for every seed.
    """
    result, edge_maps = torch.full((len(generations),), torch.nan), edges(generations.images)
    for rows in rows_by_caption(generations):
        result[rows] = edge_consistency(edge_maps[rows])
    return result


def cross_seed_std(generations: Generations) -> Tensor:
    """Minus the standard deviation over a caption's samples, mean over channels, in [0, 1] pixels, [B, H, W]: high where seeds agree.

    docs/methods.md#local-measures. 0 everywhere for a caption's only sample.
    """
    images = to_unit(generations.images)
    result = torch.zeros(len(images), *images.shape[-2:])
    for rows in rows_by_caption(generations):
        result[rows] = -images[rows].std(0).mean(0)
    return result
