"""Assignment of generations to plants, against asking for each plant by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.datasets.openmoji import load_openmoji
from afterglow.evaluation.ground_truth import attach_ground_truth
from afterglow.evaluation.matching import match_to_plants
from afterglow.generations import Generations
from afterglow.measures.memorized import calibrated_l2
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.targets import evaluation_targets


@pytest.fixture(scope="module")
def planted():
    nothing = {"num_decoys": 0, "num_tints": 0, "num_decoy_images": 0}
    return plant_images(
        load_openmoji(16), PlantingConfig(num_global=3, num_local=4, copies=(4,), num_backgrounds=40, **nothing), set_size=200
    )


def build_request(planted):
    return evaluation_targets(planted, num_controls=0, num_heldout=0)


def copies_of(planted):
    """A copy of every plant (of a region with any fill), and as many unseen images."""
    plants = planted.of_kind("global", "local", "phantom")
    copies = [planted.compose(p, 0, int(planted.background_pool[p.plant_id])) for p in plants]
    noisy = [np.clip(image + np.random.default_rng(7).integers(-6, 7, image.shape), 0, 255) for image in copies]
    return torch.from_numpy(np.stack([*noisy, *planted.pixels[planted.heldout[: len(plants)]]]).astype(np.uint8)), plants


def test_every_copy_is_assigned_to_its_plant_and_the_distance_is_that_of_a_caption_that_asks_for_it(planted):
    images, plants = copies_of(planted)
    gallery, asked = planted.gallery(), build_request(planted)
    which, near = match_to_plants(images, asked, gallery)
    assert which[: len(plants)].tolist() == list(range(len(plants))) and (near[: len(plants)] < 1).all()
    generations = Generations(images, ("",) * len(images), torch.arange(len(images)), torch.arange(1))
    for position, subject in enumerate(asked):
        slow = calibrated_l2(attach_ground_truth(generations, [subject] * len(images), gallery))
        mine = which == position
        assert torch.allclose(near[mine], slow[mine], rtol=1e-4)
        assert (slow >= near - 1e-4).all()  # no other plant is nearer


def test_a_plant_of_another_run_is_not_copied_by_images_it_was_never_in(planted):
    images, plants = copies_of(planted)
    _, near = match_to_plants(images[len(plants) :], [replace(subject) for subject in build_request(planted)], planted.gallery())
    assert (near < 1).float().mean() < 0.5  # emoji have near doubles; none is an exact copy
    assert near.min() > 0.1
