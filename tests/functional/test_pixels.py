import numpy as np
import torch

from afterglow.functional.pixels import from_signed, resize, signed_to_unit, to_signed, to_unit


def test_conversions_of_all_gray_levels_are_inverse():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_signed(to_signed(levels)), levels)
    assert torch.equal(signed_to_unit(to_signed(levels)).mul(255).round(), levels.float())
    assert torch.allclose(to_unit(levels), signed_to_unit(to_signed(levels)), atol=1e-6)
    assert to_signed(levels).min() == -1 and to_signed(levels).max() == 1


def test_conversions_accept_read_only_arrays():
    array = np.arange(256, dtype=np.uint8)
    array.setflags(write=False)
    assert torch.equal(to_unit(array), to_unit(torch.arange(256, dtype=torch.uint8)))


def test_from_signed_clips_values_outside_the_range():
    assert from_signed(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_resize_keeps_constants_and_returns_maps_of_the_right_size_unchanged():
    maps = torch.full((2, 4, 4), 0.3)
    assert resize(maps, (4, 4)) is maps
    assert torch.allclose(resize(maps, (8, 6)), torch.full((2, 8, 6), 0.3))
