"""A small made-up set with everything that a real one has: twins, chains of twins, families, pictures too near to be planted."""

from collections.abc import Callable

import numpy as np
import pytest

from afterglow.data.dealer import plant
from afterglow.data.openmoji import load_openmoji
from afterglow.data.pictures import Pictures
from afterglow.data.plants import PlantedSet, Planting

NUM_LONE = 260


def make_pictures(side: int = 8, channels: int = 3, *, distinct: bool = True, num_lone: int = NUM_LONE) -> Pictures:
    """Lone pictures, 20 near ones (eligible nowhere, no twins), 10 twins, a chain of 3 and 4 families of 3 with a shared middle."""
    generator = np.random.default_rng(5)
    lone = generator.integers(0, 256, (num_lone, channels, side, side))
    near = np.clip(lone[:20] + generator.choice([-16, 16], (20, channels, side, side)), 0, 255)  # about .06 away
    twins = np.clip(lone[20:30] + 2, 0, 255)
    chain = np.stack([np.full((channels, side, side), value) for value in (100, 106, 112)])  # .024 apart, the ends .047
    families = []
    for _ in range(4):
        members = generator.integers(0, 256, (3, channels, side, side))
        members[:, :, 2:6, 2:6] = members[0, :, 2:6, 2:6] + generator.integers(0, 2, (3, 1, 1, 1))  # agree to 1/255
        families.append(np.clip(members, 0, 255))
    pixels = np.concatenate([lone, near, twins, chain, *families]).astype(np.uint8)
    count = len(pixels)
    numbers = np.full(count, -1)
    numbers[-12:] = np.repeat(np.arange(4), 3)
    shuffled = generator.permutation(count)
    captions = [f"picture {row}" if distinct else f"class {row % 3}" for row in range(count)]
    family_captions = {number: f"family {number}" if distinct else "class 0" for number in range(4)}
    names = tuple(f"{row}.png" for row in range(count))
    return Pictures(pixels[shuffled], tuple(captions), names, numbers[shuffled].astype(np.int64), distinct, family_captions)


@pytest.fixture(scope="session")
def make() -> Callable[..., Pictures]:
    return make_pictures


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return make_pictures()


@pytest.fixture(scope="session")
def small() -> Planting:
    return Planting(
        num_global=4, num_local=5, num_natural=2, num_decoys=3, num_tints=3, copies=(2, 5), num_fills=20, num_moving=15, num_heldout=10
    )


@pytest.fixture(scope="session")
def planted(pictures: Pictures, small: Planting) -> PlantedSet:
    return plant(pictures, small, set_size=60, seed=3)


@pytest.fixture(scope="session")
def openmoji() -> Pictures:
    """The real thing, from the cache where there is one (else rendered: a few seconds)."""
    return load_openmoji(16)
