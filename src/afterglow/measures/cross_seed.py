"""What the generations of one caption have in common: no training image and no model is needed."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from afterglow.generations import Generations

NUM_TILES = 4  # a side: Carlini et al. 2023 cut 512 pixels into 16 tiles of 128
EDGE = 1.5  # Sobel magnitude summed over RGB, pixels in [0, 1] (Webster 2023)


def rows_by_caption(generations: Generations) -> list[Tensor]:
    """Rows of each caption's generations, in order of appearance; a caption that is asked for as two plants counts as two."""
    ids = generations.plant_id.tolist() if generations.plant_id is not None else [0] * len(generations)
    rows: dict[tuple[int, str], list[int]] = {}
    for row, key in enumerate(zip(ids, generations.caption, strict=True)):
        rows.setdefault(key, []).append(row)
    return [torch.tensor(chosen) for chosen in rows.values()]


def tiled_similarity(generations: Generations, *, local: bool = False) -> Tensor:
    """Minus the tiled distance to the other generations of the same caption, mean over them, [B]; NaN for a caption's only generation.

    Carlini et al. 2023: the largest root mean square difference over 16 tiles that do not overlap, pixels in [0,1]: one tile that
    differs vetoes. local: the smallest over tiles instead, which asks for a common region only (METHODS (g)).
    """
    images = generations.images.float() / 255
    found = torch.full((len(images),), torch.nan)
    for rows in rows_by_caption(generations):
        if len(rows) < 2:
            continue
        some = images[rows]
        squares = (some[:, None] - some[None]).square().mean(2)  # [n, n, H, W]
        tiles = avg_pool2d(squares, (squares.shape[-2] // NUM_TILES, squares.shape[-1] // NUM_TILES)).flatten(2).sqrt()
        distances = tiles.amin(2) if local else tiles.amax(2)  # 0 on the diagonal
        found[rows] = -distances.sum(1) / (len(rows) - 1)
    return found


def edges(images: Tensor) -> Tensor:
    """Pixels whose Sobel magnitude, summed over channels, exceeds 1.5: bool [B, H, W]. images: uint8 [B, C, H, W].

    A gray image counts three times, as its RGB twin would.
    """
    light = images.float() / 255
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    flat = pad(light.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    magnitude = conv2d(flat, kernels).square().sum(1).sqrt().unflatten(0, light.shape[:2])
    return magnitude.sum(1) * (3 / light.shape[1]) > EDGE


def edge_consistency(generations: Generations) -> Tensor:
    """Share of the pixels that are edges in more than half of a caption's generations, [B]; NaN for a caption's only generation.

    Webster 2023, the black-box detector (METHODS (m)): memorized captions draw the same outlines whatever the seed.
    """
    found = torch.full((len(generations),), torch.nan)
    drawn = edges(generations.images).float()
    for rows in rows_by_caption(generations):
        if len(rows) > 1:
            found[rows] = (drawn[rows].mean(0) > 0.5).float().mean()
    return found


def agreement(generations: Generations) -> Tensor:
    """Minus the standard deviation over a caption's generations, mean over channels, in [0,1] pixels, [B, H, W]: high where seeds agree.

    METHODS (m), cross-generation difference. 0 everywhere for a caption's only generation.
    """
    images = generations.images.float() / 255
    found = torch.zeros(len(images), *images.shape[-2:])
    for rows in rows_by_caption(generations):
        if len(rows) > 1:
            found[rows] = -images[rows].std(0).mean(0)
    return found
