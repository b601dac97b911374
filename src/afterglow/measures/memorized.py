"""When a sample is a copy (docs/methods.md#memorized). Pixels in [0, 1]; distances are root mean squares inside the evaluation mask."""

from torch import Tensor

from afterglow.functional import distances
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations

COPIED_OUTSIDE = 1 / 3  # outside diversity below which a local plant is copied whole


def reference_distance(generations: Generations) -> Tensor:
    """Distance to the reference inside the evaluation mask, [B] (docs/methods.md#distance)."""
    assert generations.references is not None and generations.eval_mask is not None
    return distances.masked_rms(to_unit(generations.images), to_unit(generations.references), generations.eval_mask)


def reconstruction_error(generations: Generations) -> Tensor:
    """Distance between the reference and its reconstruction by a latent model's autoencoder, inside the mask, [B]."""
    return generations.extras["reconstruction_error"]


def calibrated_l2(generations: Generations) -> Tensor:
    """Distance to the reference over half the mean distance to the 50 nearest other clusters, [B]; below 1 for a copy.

    Carlini et al. 2023 (docs/methods.md#calibrated-distance), over clusters and inside the mask.
    """
    assert generations.neighbors is not None
    return distances.calibrated_l2(reference_distance(generations), generations.neighbors.distances[:, 1:])


def memorized(generations: Generations) -> Tensor:
    """1 where the calibrated distance is below 1, else 0, [B]; NaN where it is undefined."""
    distance = calibrated_l2(generations)
    return (distance < 1).float().where(~distance.isnan(), distance)


def nn_ratio(generations: Generations) -> Tensor:
    """d1/d2: distance to the reference over distance to the nearest other cluster, [B]; below 1/3 for a copy (docs/methods.md#nn-ratio)."""
    assert generations.neighbors is not None
    return distances.nn_ratio(reference_distance(generations), generations.neighbors.distances[:, 1])


def correlation(generations: Generations) -> Tensor:
    """Pearson correlation with the reference inside the mask, mean over channels, [B] (docs/methods.md#correlation)."""
    assert generations.references is not None and generations.eval_mask is not None
    return distances.masked_correlation(generations.images, generations.references, generations.eval_mask)


def plant_memorized(memorized_samples: Tensor) -> float:
    """1 if at least half of a plant's samples are memorized, else 0. memorized_samples: 0 or 1 for each seed, [S]."""
    return float(memorized_samples.float().mean() >= 0.5)


def outside_diversity(generations: Generations) -> float:
    """Standard deviation over the seeds of one local plant outside its mask, over that of the plant's own backgrounds there."""
    assert generations.eval_mask is not None
    outside = ~generations.eval_mask[0]
    return float(distances.masked_std(to_unit(generations.images), outside) / generations.extras["background_spread"][0])


def local_to_global(generations: Generations) -> float:
    """1 if the samples of one local plant copy whole images, else 0.

    That is: outside diversity below 1/3, or (finite backgrounds) half of the seeds with a calibrated distance below 1 to one
    background outside the mask.
    """
    copies_of_a_background = (generations.extras["background_distance"] < 1).float().mean() >= 0.5
    return float(outside_diversity(generations) < COPIED_OUTSIDE or bool(copies_of_a_background))
