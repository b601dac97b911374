import numpy as np
import torch

from afterglow.evaluation.region_copies import images_with_content, map_regions, match_region, num_near, region_masks, windows
from afterglow.functional.distances import masked_contrast, masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.neighbors.gallery import Gallery


def test_windows_are_all_of_two_sizes_on_the_lattice():
    assert windows(16).shape == (25 + 36, 8, 8) and windows(12).shape == (9, 4, 4) and windows(10).shape == (4, 2, 2)
    assert windows(16).sum((1, 2)).tolist() == [16] * 25 + [9] * 36 and len(windows(16).unique(dim=0)) == 61
    assert region_masks(windows(16), 16)[0, :8, :8].all() and region_masks(windows(16), 16)[0].sum() == 64


def test_a_small_set_is_calibrated_by_fewer_images():
    assert [num_near(count) for count in (10, 127, 640, 3200, 10**5)] == [1, 1, 10, 50, 50]


def test_map_regions_are_the_quarter_in_which_each_map_is_highest(generations):
    found, cells = map_regions(generations), torch.Size((8, 8))
    assert found.shape[1] == 2 and found.shape[2:] == cells and (found.sum((2, 3)) == 16).all()


def test_a_region_match_is_that_of_the_rule_and_images_that_share_it_count_as_one():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4, 4:] = True
    pixels[5:8, :, :4, 4:] = pixels[4, :, :4, 4:]
    made = generator.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    made[0, :, :4, 4:] = np.clip(pixels[4, :, :4, 4:].astype(int) + 3, 0, 255)
    pixels[9, :, :2, 4:] = 100  # one color covers half: no content, however the other half looks
    made[1] = pixels[9]
    gallery = Gallery(pixels, np.arange(12))
    found = match_region(torch.from_numpy(made), mask, gallery)
    unit, one = to_unit(pixels), to_unit(made[0])
    others = [row for row in range(12) if row not in (4, 5, 6, 7)]
    least = min(*(masked_rms(base, unit[others], mask).min() for base in (one, unit[4])), masked_contrast(unit[4], mask))
    assert found.rows[0] in (4, 5, 6, 7) and torch.allclose(found.values[0], masked_rms(one, unit[4], mask) / (0.5 * least), atol=1e-5)
    assert found.values[0] < 0.2 and found.values[1].isinf() and found.values[2] > 1
    shared = images_with_content(torch.tensor([4, 0]), mask, gallery)
    assert shared[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7] and shared[1].nonzero().tolist() == [[0]]
    apart = match_region(torch.from_numpy(made), mask[None].expand(3, -1, -1, -1), gallery)
    assert torch.equal(apart.rows, found.rows) and torch.equal(apart.values, found.values)
    own = match_region(torch.from_numpy(pixels), mask, gallery, torch.arange(12))
    assert not {4, 5, 6, 7} & set(own.rows[4:8].tolist()) and (own.values[4:8] > 1).all()
