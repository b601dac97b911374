import numpy as np
import pytest
import torch

from afterglow.evaluation import patches
from afterglow.evaluation.patches import patch_distance
from afterglow.neighbors.gallery import Gallery, Template


def slow(image, images, templates, patch):
    """Plain loops over places, images and pixels."""
    reach, side = patch // 2, image.shape[-1]
    found = np.zeros((side, side))
    for y in range(side):
        for x in range(side):
            window = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            values = [((image[:, *window] - other[:, *window]) ** 2).mean() for other in images]
            for template in templates:
                shown = template.mask[0]
                if shown[y, x]:
                    squares = ((image - template.pixels / 255.0) ** 2).mean(0)[window]
                    values.append(squares[shown[window]].mean())
            found[y, x] = np.sqrt(min(values))
    return found


@pytest.mark.parametrize(("patch", "channels"), [(5, 3), (3, 1), (1, 3)])
def test_the_nearest_patch_is_that_of_plain_loops(patch, channels, monkeypatch):
    monkeypatch.setattr(patches, "_CHUNK", 4)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (11, channels, 8, 8), dtype=np.uint8)
    mask = np.zeros((1, 8, 8), bool)
    mask[:, 1:6, 2:] = True
    template = Template(generator.integers(0, 256, (channels, 8, 8), dtype=np.uint8), mask, 99)
    images = np.stack([pixels[3], generator.integers(0, 256, (channels, 8, 8), dtype=np.uint8), np.where(mask, template.pixels, pixels[5])])
    found = patch_distance(torch.from_numpy(images), Gallery(pixels[:10], np.arange(10), (template,)), patch=patch)
    for row in range(3):
        np.testing.assert_allclose(found[row], slow(images[row] / 255.0, pixels[:10] / 255.0, [template], patch), atol=1e-5)
    assert found[0].abs().max() < 1e-4  # a copy of a training image, everywhere
    assert found[2][torch.from_numpy(mask[0])].abs().max() < 1e-4  # a copy of what is planted, there
