"""Assignment of generations to plants, against asking for each plant by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.collect import annotate, assign
from afterglow.data.dealer import plant
from afterglow.data.openmoji import load_openmoji
from afterglow.data.plants import Planting
from afterglow.data.subjects import subjects
from afterglow.evidence import Evidence
from afterglow.measures.memorized import calibrated_distance


@pytest.fixture(scope="module")
def planted():
    nothing = {"num_decoys": 0, "num_tints": 0, "num_moving": 0}
    return plant(load_openmoji(16), Planting(num_global=3, num_local=4, copies=(4,), num_fills=40, **nothing), set_size=200)


def asked_of(planted):
    return subjects(planted, num_controls=0, num_heldout=0)


def generations(planted):
    """A copy of every plant (of a region with any fill), and as many unseen pictures."""
    plants = planted.of_kind("global", "local", "phantom")
    copies = [planted.compose(p, 0, int(planted.fills[p.plant_id])) for p in plants]
    noisy = [np.clip(picture + np.random.default_rng(7).integers(-6, 7, picture.shape), 0, 255) for picture in copies]
    return torch.from_numpy(np.stack([*noisy, *planted.pixels[planted.heldout[: len(plants)]]]).astype(np.uint8)), plants


def test_every_copy_is_assigned_to_its_plant_and_the_distance_is_that_of_a_caption_that_asks_for_it(planted):
    images, plants = generations(planted)
    gallery, asked = planted.gallery(), asked_of(planted)
    which, near = assign(images, asked, gallery)
    assert which[: len(plants)].tolist() == list(range(len(plants))) and (near[: len(plants)] < 1).all()
    evidence = Evidence(images, ("",) * len(images), torch.arange(len(images)), torch.arange(1))
    for position, subject in enumerate(asked):
        slow = calibrated_distance(annotate(evidence, [subject] * len(images), gallery))
        mine = which == position
        assert torch.allclose(near[mine], slow[mine], rtol=1e-4)
        assert (slow >= near - 1e-4).all()  # no other plant is nearer


def test_a_plant_of_another_run_is_not_copied_by_pictures_it_was_never_in(planted):
    images, plants = generations(planted)
    _, near = assign(images[len(plants) :], [replace(subject) for subject in asked_of(planted)], planted.gallery())
    assert (near < 1).float().mean() < 0.5  # emoji have near doubles; none is an exact copy
    assert near.min() > 0.1
