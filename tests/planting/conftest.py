"""The planting that the tests of the training stream share."""

import pytest

from afterglow.datasets.images import CaptionedImages
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig


@pytest.fixture(scope="session")
def stream_planting() -> PlantingConfig:
    return PlantingConfig(
        num_global=3,
        num_local=3,
        num_natural=2,
        num_decoys=3,
        num_tints=2,
        copies=(2, 5),
        num_backgrounds=40,
        num_decoy_images=40,
        num_heldout=10,
    )


@pytest.fixture(scope="session")
def stream_set(images: CaptionedImages, stream_planting: PlantingConfig) -> PlantedSet:
    return plant_images(images, stream_planting, set_size=30, seed=2)
