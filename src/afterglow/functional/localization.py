"""How well maps locate a region: AUC over pixels, and IoU at a threshold chosen on other plants (docs/methods.md#localization-metrics)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.functional.pixels import resize
from afterglow.functional.statistics import random_folds

NUM_THRESHOLDS = 101
LEAVE_ONE_OUT_BELOW = 16  # plants


def map_auc(maps: Tensor, regions: Tensor) -> Tensor:
    """Area under the ROC curve of each map's pixels against its region, float64 [B]; ties count half.

    Args:
        maps: float [B, h, w], resized bilinearly to the image.
        regions: bool [B, 1, H, W], neither empty nor full.

    >>> region = torch.tensor([[[[True, False], [False, False]]]])
    >>> map_auc(torch.tensor([[[0.9, 0.2], [0.1, 0.0]]]), region)
    tensor([1.], dtype=torch.float64)
    """
    truth = regions[:, 0].flatten(1).numpy()
    inside = truth.sum(1)
    above = (_ranks(maps, regions) * truth).sum(1) - inside * (inside + 1) / 2
    return torch.from_numpy(above / (inside * (truth.shape[1] - inside)))


def cross_auc(maps: Tensor, regions: Tensor) -> Tensor:
    """As `map_auc`, of each map against each region, float64 [B, K]. regions: bool [K, 1, H, W]."""
    truth = regions[:, 0].flatten(1).numpy()
    inside = truth.sum(1)
    above = _ranks(maps, regions) @ truth.T - inside * (inside + 1) / 2
    return torch.from_numpy(above / (inside * (truth.shape[1] - inside)))


def _ranks(maps: Tensor, regions: Tensor) -> np.ndarray:
    from scipy.stats import rankdata  # takes half a second to import

    return rankdata(resize(maps.float(), regions.shape[-2:]).flatten(1).double().numpy(), axis=1)


def mask_prior(regions: Tensor) -> Tensor:
    """For each of K plants the mean of the other plants' masks, float [K, H, W]: a map that knows only where regions usually are.

    regions: bool [K, 1, H, W] of distinct plants, K >= 2.
    """
    values = regions[:, 0].float()
    return (values.sum(0) - values) / (len(values) - 1)


def prior_auc(regions: Tensor, plants: Sequence[int]) -> Tensor:
    """AUC of the `mask_prior` of each sample's plant against its own mask, float64 [B].

    Args:
        regions: bool [B, 1, H, W].
        plants: a number for each sample; the seeds of one plant share it. At least two plants.
    """
    first = {plant: row for row, plant in reversed(list(enumerate(plants)))}
    priors = mask_prior(regions[list(first.values())])
    places = {plant: place for place, plant in enumerate(first)}
    return map_auc(priors[[places[plant] for plant in plants]], regions)


def shape_class(shape: str) -> str:
    """half, quadrant, box or blob: the last word of a region's name.

    >>> shape_class("left half")
    'half'
    """
    return shape.rpartition(" ")[2]


def permuted_auc(maps: Tensor, regions: Tensor, plants: Sequence[int], shapes: Sequence[str]) -> Tensor:
    """Mean AUC of each map against the masks of other plants of its shape class, float64 [B]; NaN where there is no other mask.

    Args:
        maps: float [B, h, w].
        regions: bool [B, 1, H, W], own mask of each.
        plants: a number for each map; the seeds of one plant share it.
        shapes: shape class of each. A mask that equals the own one does not count.
    """
    first = {plant: row for row, plant in reversed(list(enumerate(plants)))}
    rows = list(first.values())
    found = cross_auc(maps, regions[rows])
    classes = np.asarray(shapes)
    other = torch.from_numpy(classes[:, None] == classes[rows][None]) & (regions[:, None] != regions[rows][None]).flatten(2).any(2)
    return (found * other).sum(1) / other.sum(1)


def iou(maps: np.ndarray, regions: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Intersection over union of each map above each threshold with its region, [B, K].

    Each map is sorted once: the pixels above a threshold are the end of its row, and the running sum of the region along the row
    tells how many of them are inside.

    Args:
        maps: float [B, pixels].
        regions: bool [B, pixels].
        thresholds: float [K].

    >>> iou(np.array([[0.9, 0.8, 0.1]]), np.array([[True, False, False]]), np.array([0.5, 0.85]))
    array([[0.5, 1. ]])
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
    """Threshold with the highest mean IoU among 101 quantiles of the pooled values and one value below them all."""
    candidates = np.quantile(maps, np.linspace(0, 1, NUM_THRESHOLDS))
    candidates = np.concatenate([[candidates[0] - 1], np.unique(candidates)])
    return float(candidates[iou(maps, regions, candidates).mean(axis=0).argmax()])


def held_out_iou(maps: Tensor, regions: Tensor, plants: Sequence[int]) -> tuple[Tensor, Tensor]:
    """IoU of each map with its region at a threshold chosen on other plants, and these thresholds, float64 [B].

    A random half of the plants chooses the threshold for the other half, both ways. With fewer than 16 plants, each plant's threshold
    is chosen by all the others.

    Args:
        maps: float [B, h, w].
        regions: bool [B, 1, H, W].
        plants: a number for each map; the seeds of one plant share it. At least two plants.
    """
    values = resize(maps.float(), regions.shape[-2:]).flatten(1).numpy()
    truth, numbers = regions[:, 0].flatten(1).numpy(), np.asarray(plants)
    result, used = np.zeros(len(values)), np.zeros(len(values))
    for held_out in _folds(numbers):
        threshold = best_threshold(values[~held_out], truth[~held_out])
        result[held_out], used[held_out] = iou(values[held_out], truth[held_out], np.array([threshold]))[:, 0], threshold
    return torch.from_numpy(result), torch.from_numpy(used)


def _folds(numbers: np.ndarray) -> list[np.ndarray]:
    distinct = np.unique(numbers)
    if len(distinct) < 2:
        raise AfterglowError(f"A held-out threshold needs at least two plants; this input has {len(distinct)}.")
    if len(distinct) < LEAVE_ONE_OUT_BELOW:
        return [numbers == number for number in distinct]
    (folds,) = random_folds(numbers)
    return [folds == fold for fold in (0, 1)]
