"""Operations on maps, apart from the maps themselves: normalizing, smoothing, resizing and thresholds (METHODS (a), options)."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

NORMALIZATIONS = ("none", "minmax", "sum")
THRESHOLDS = ("otsu", "quantile", "fixed")


def normalize(maps: Tensor, how: str) -> Tensor:
    """[B, h, w]: as they are (none), each to [0, 1] (minmax; 0 where a map is constant), or each to sum 1 (sum)."""
    if how not in NORMALIZATIONS:
        raise ValueError(f"A map can be normalized by {', '.join(NORMALIZATIONS)}, and not by '{how}'.")
    if how == "none":
        return maps
    if how == "sum":
        return maps / maps.sum((1, 2), keepdim=True)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """[B, h, w] under a Gaussian of `sigma` pixels of the map, cut at 3 sigma, borders repeated; 0 leaves a map as it is."""
    if sigma < 0:
        raise ValueError(f"sigma must not be negative, and it is {sigma}.")
    if sigma == 0:
        return maps
    reach = math.ceil(3 * sigma)
    line = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    line = line / line.sum()
    wide = pad(maps[:, None].float(), (reach,) * 4, mode="replicate")
    return conv2d(conv2d(wide, line[None, None, None]), line[None, None, :, None])[:, 0]


def resize_to(maps: Tensor, size: tuple[int, int], how: str = "bilinear") -> Tensor:
    """[B, h, w] => [B, *size], 'bilinear' or 'nearest'."""
    if how not in ("bilinear", "nearest"):
        raise ValueError(f"A map is resized by bilinear or nearest, and not by '{how}'.")
    return interpolate(maps[:, None].float(), size=size, mode=how, align_corners=False if how == "bilinear" else None)[:, 0]


def threshold(maps: Tensor, rule: str, value: float = 0.5) -> Tensor:
    """The threshold of each map by a rule that looks at no truth, [B].

    otsu: the value that splits a map's own values into the two most distinct classes; quantile: its `value`-quantile;
    fixed: `value` itself. The held-out rule, which looks at the truth of other plants, is localization.held_out_overlap.
    """
    if rule not in THRESHOLDS:
        raise ValueError(f"A threshold rule is one of {', '.join(THRESHOLDS)}, and not '{rule}'.")
    flat = maps.flatten(1).float()
    if rule == "fixed":
        return torch.full((len(maps),), float(value))
    if rule == "quantile":
        return flat.quantile(value, dim=1)
    return torch.tensor([_otsu(row) for row in flat.double().numpy()], dtype=torch.float32)


def _otsu(values: np.ndarray) -> float:
    """Otsu 1979 over the values themselves, no histogram: the largest variance between 'at most t' and 'above t'."""
    ascending = np.sort(values)
    below = np.arange(1, len(ascending))
    sums = ascending.cumsum()
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ascending) - below)
    between = below * (len(ascending) - below) * (low - high) ** 2
    distinct = ascending[:-1] < ascending[1:]
    return float(ascending[:-1][distinct][between[distinct].argmax()]) if distinct.any() else float(ascending[0])
