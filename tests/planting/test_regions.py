from collections import deque

import numpy as np
import pytest

from afterglow.planting.regions import SHAPES, region


def num_pieces(mask: np.ndarray) -> int:
    """Connected pieces, by flooding one after the other."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    pieces = 0
    while left:
        queue, pieces = deque([left.pop()]), pieces + 1
        while queue:
            y, x = queue.popleft()
            for beside in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if beside in left:
                    left.remove(beside)
                    queue.append(beside)
    return pieces


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("resolution", [4, 16, 32])
def test_region_is_connected_and_at_most_half(shape: str, resolution: int) -> None:
    for turn in range(12):
        name, mask = region(shape, resolution, turn, np.random.default_rng(turn))
        assert name.endswith(shape) and mask.shape == (resolution, resolution) and mask.dtype == bool
        assert 0.1 < mask.mean() <= 0.5 and num_pieces(mask) == 1


def test_halves_and_quadrants_take_turns_and_match_their_names() -> None:
    inside = {"left": (8, 2), "right": (8, 13), "top": (2, 8), "bottom": (13, 8)}
    inside |= {"top left": (2, 2), "top right": (2, 13), "bottom left": (13, 2), "bottom right": (13, 13)}
    for shape, share in (("half", 0.5), ("quadrant", 0.25)):
        masks = [region(shape, 16, turn, np.random.default_rng(0)) for turn in range(4)]
        assert len({name for name, _ in masks}) == 4
        for name, mask in masks:
            assert mask[inside[name.removesuffix(f" {shape}")]] and mask.mean() == share
        assert (sum(mask.astype(int) for _, mask in masks) == (2 if shape == "half" else 1)).all()  # together they cover all alike


def test_box_is_centered() -> None:
    _, mask = region("box", 16, 0, np.random.default_rng(0))
    assert (mask == mask[::-1]).all() and (mask == mask.T).all() and mask.sum() == 100


@pytest.mark.parametrize("shape", ["blob", "rectangle"])
def test_random_regions_depend_on_the_generator_only(shape: str) -> None:
    masks = [region(shape, 16, 0, np.random.default_rng(seed))[1] for seed in (1, 1, 2, 3, 4)]
    assert (masks[0] == masks[1]).all()
    assert len({mask.tobytes() for mask in masks}) == 4


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="no region shape 'circle'; the shapes are half, quadrant, box"):
        region("circle", 16, 0, np.random.default_rng(0))
