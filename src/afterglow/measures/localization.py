"""How well a map finds a planted region, and the trivial maps that it must beat (METHODS section 4)."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import avg_pool2d

from afterglow.generations import Generations
from afterglow.measures.guidance import resize

NUM_THRESHOLDS = 101
LEAVE_ONE_OUT_BELOW = 16  # plants


def map_auc(maps: Tensor, regions: Tensor) -> Tensor:
    """Area under the ROC curve of each map's pixels against its region, ties counted half.

    maps: [B, h, w], resized bilinearly to the image; regions: bool [B, 1, H, W], neither empty nor full. Returns [B].
    """
    truth = regions[:, 0].flatten(1).numpy()
    ranks = rankdata(resize(maps.float(), regions.shape[-2:]).flatten(1).double().numpy(), axis=1)
    inside = truth.sum(1)
    above = (ranks * truth).sum(1) - inside * (inside + 1) / 2
    return torch.from_numpy(above / (inside * (truth.shape[1] - inside)))


def all_ones(generations: Generations) -> Tensor:
    """[B, H, W]: says nothing."""
    return torch.ones(len(generations), *generations.images.shape[-2:])


def centered_gaussian(generations: Generations) -> Tensor:
    """[B, H, W]: exp(-r^2 / 2 sigma^2) with sigma a quarter of the side: most things are in the middle."""
    height, width = generations.images.shape[-2:]
    rows, columns = torch.linspace(-2, 2, height), torch.linspace(-2, 2, width)
    return torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / 2).expand(len(generations), -1, -1)


def luminance(generations: Generations) -> Tensor:
    """[B, H, W]: mean over channels of the generated image, in [0, 1]."""
    return generations.images.float().mean(1) / 255


def local_contrast(generations: Generations) -> Tensor:
    """[B, H, W]: standard deviation of the luminance in 3x3 windows, of the pixels that lie in the image."""
    # whole numbers in float64, so that flat pieces have exactly 0 and tie, whatever their color
    light = generations.images.double().sum(1, keepdim=True)
    count, total, squares = (avg_pool2d(values, 3, 1, 1, divisor_override=1) for values in (torch.ones_like(light), light, light**2))
    deviation = (count * squares - total**2).sqrt() / count
    return (deviation[:, 0] / (255 * generations.images.shape[1])).float()


def overlaps(maps: np.ndarray, regions: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Intersection over union of each map above each threshold with its region.

    maps: [B, pixels]; regions: bool [B, pixels]; thresholds: [K]. Returns [B, K]. Each map is sorted once: above any threshold
    lies the end of its row, and the running sum of the region along the row says how much of the end is inside.
    """
    order = np.argsort(maps, axis=1)
    ascending = np.take_along_axis(maps, order, axis=1)
    inside_below = np.pad(np.take_along_axis(regions, order, axis=1).cumsum(axis=1), ((0, 0), (1, 0)))
    total = regions.sum(axis=1, keepdims=True)
    not_above = np.stack([np.searchsorted(row, thresholds, side="right") for row in ascending])
    intersection = total - np.take_along_axis(inside_below, not_above, axis=1)
    union = maps.shape[1] - not_above + total - intersection
    return intersection / np.maximum(1, union)


def best_threshold(maps: np.ndarray, regions: np.ndarray) -> float:
    """The threshold with the highest mean overlap, among 101 quantiles of the pooled values (and one below them all)."""
    candidates = np.quantile(maps, np.linspace(0, 1, NUM_THRESHOLDS))
    candidates = np.concatenate([[candidates[0] - 1], np.unique(candidates)])
    return float(candidates[overlaps(maps, regions, candidates).mean(axis=0).argmax()])


def held_out_overlap(maps: Tensor, regions: Tensor, groups: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Overlap of each map with its region, at a threshold that was chosen on other groups; also the thresholds, both [B].

    maps: [B, h, w]; regions: bool [B, 1, H, W]; groups: a number for each map, all seeds of a plant share one. Half of the
    groups choose and the other half is judged, both ways; with fewer than 16 groups each is judged by all the others.
    """
    values = resize(maps.float(), regions.shape[-2:]).flatten(1).numpy()
    truth, numbers = regions[:, 0].flatten(1).numpy(), np.asarray(groups)
    result, used = np.zeros(len(values)), np.zeros(len(values))
    for judged in _folds(numbers):
        threshold = best_threshold(values[~judged], truth[~judged])
        result[judged], used[judged] = overlaps(values[judged], truth[judged], np.array([threshold]))[:, 0], threshold
    return torch.from_numpy(result), torch.from_numpy(used)


def _folds(numbers: np.ndarray) -> list[np.ndarray]:
    distinct = np.unique(numbers)
    if len(distinct) < 2:
        raise ValueError(f"A held-out threshold needs at least two plants, and there are {len(distinct)}.")
    if len(distinct) < LEAVE_ONE_OUT_BELOW:
        return [numbers == number for number in distinct]
    return [np.isin(numbers, distinct[turn::2]) for turn in (0, 1)]
