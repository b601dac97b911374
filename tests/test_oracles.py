"""The closed-form optimal denoiser of a finite set (Gu et al. 2023): a model whose memory is known without training."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.openmoji import load_openmoji
from afterglow.datasets.sources import load_images
from afterglow.evaluation.ground_truth import attach_ground_truth
from afterglow.measures.memorized import calibrated_l2, memorized, nn_ratio
from afterglow.models.optimal import OptimalDenoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.targets import unconditional_targets
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

NOTHING_PLANTED = PlantingConfig(
    num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=0, phantoms=False
)
SAMPLER, COUNT = Sampler(steps=50), 96
PLAIN = CaptureConfig(guidance=False, tokens=False, end_steps=())


def fields():
    """700 smooth random fields: like photographs, none is near another."""
    generator = np.random.default_rng(0)
    noise = gaussian_filter(generator.standard_normal((700, 3, 16, 16)), (0, 0, 2, 2), mode="wrap")
    pixels = (128 + 45 * noise / noise.std()).clip(0, 255).astype(np.uint8)
    names = tuple(map(str, range(700)))
    return CaptionedImages(pixels, names, names, np.full(700, -1), True)


def split(images):
    """A planted set without plants, and two disjoint halves of it, made of different groups."""
    planted = plant_images(images, NOTHING_PLANTED, set_size=600, seed=0)
    rows = planted.controls
    return planted, *(Gallery(planted.pixels[part], planted.clusters[part]) for part in (rows[:300], rows[300:]))


@pytest.fixture(scope="module", params=["fields", "cifar10", "openmoji"])
def halves(request):
    if request.param == "cifar10":
        folder = request.getfixturevalue("shared_data") / "cifar"
        return split(load_images("cifar10", resolution=16, data_dir=str(folder / "test")))
    return split(load_openmoji(16) if request.param == "openmoji" else fields())


def evaluated(model, planted, gallery):
    asked = unconditional_targets(planted, COUNT)
    return attach_ground_truth(generate(model, [""] * COUNT, list(range(COUNT)), SAMPLER, PLAIN), asked, gallery)


def test_the_optimal_denoiser_of_a_set_draws_training_images_only(halves):
    planted, gallery, _ = halves
    found = evaluated(OptimalDenoiser(gallery.pixels), planted, gallery)
    assert memorized(found).mean() == 1
    assert calibrated_l2(found).max() < 0.02
    ratio = nn_ratio(found)
    assert (ratio[ratio.isfinite()] < 0.05).all()
    assert len(set(found.neighbors.clusters[:, 0].tolist())) > COUNT / 3  # and many different ones


def median_distance(pixels):
    """To the nearest other image, Euclidean, in [-1, 1]."""
    flat = torch.from_numpy(pixels).double().flatten(1) / 127.5 - 1
    return torch.cdist(flat, flat).fill_diagonal_(torch.inf).min(1).values.median().item()


def test_the_set_smoothed_by_half_the_distance_between_its_images_is_not_memorized(halves):
    """The Gaussian's standard deviation is a Euclidean distance, as in a kernel density estimate."""
    planted, gallery, _ = halves
    found = evaluated(OptimalDenoiser(gallery.pixels, width=median_distance(gallery.pixels) / 2), planted, gallery)
    assert memorized(found).mean() <= 0.05


def test_the_denoiser_of_a_disjoint_half_is_not_memorized_in_this_one(halves, request):
    """Not so for emoji, which have near doubles in other groups: the nearest of 300 is often half as far as the next 50 on average."""
    planted, gallery, other = halves
    if "openmoji" in request.node.name:
        assert 0.1 < memorized(evaluated(OptimalDenoiser(other.pixels), planted, gallery)).mean() < 0.5
        return
    found = evaluated(OptimalDenoiser(other.pixels), planted, gallery)
    assert memorized(found).mean() == 0
    assert memorized(evaluated(OptimalDenoiser(other.pixels), planted, other)).mean() == 1
