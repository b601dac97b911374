import base64
import io

import numpy as np
import pytest
from PIL import Image

from afterglow.reports.images import HEAT_COLORS, LARGEST_SIDE, data_uri, heat, inline_image, outline


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize("channels", [1, 3])
def test_data_uri_of_a_small_image_is_lossless(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 6, 5), dtype=np.uint8)
    expected = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
    assert np.array_equal(opened(data_uri(pixels)), expected)


def test_inline_image_reduces_large_images_and_masks() -> None:
    mask = np.zeros((512, 256), dtype=bool)
    mask[:256] = True
    shown = inline_image(np.zeros((3, 512, 256), dtype=np.uint8), "large", mask=mask)
    assert (shown.width, shown.height) == (LARGEST_SIDE // 2, LARGEST_SIDE) and shown.uri.startswith("data:image/jpeg")
    assert f"M0 {LARGEST_SIDE // 2}h1" in shown.outline and len(shown.uri) < 10_000


def test_outline_follows_the_mask() -> None:
    mask = np.zeros((3, 3), dtype=bool)
    mask[1, 1] = True
    assert outline(mask) == "M1 1h1M1 2h1M1 1v1M2 1v1"
    assert outline(np.zeros((3, 3), dtype=bool)) == ""
    assert outline(np.ones((2, 2), dtype=bool)).count("M") == 8


def test_heat_increases_with_the_map_and_is_dark_for_a_constant_map() -> None:
    shown = heat(np.array([[[0.1, 0.2]], [[3, 3]]], dtype=np.float16), (4, 8)).astype(int)
    assert shown.shape == (2, 4, 8) and (np.diff(shown[0], axis=1) >= 0).all() and shown[0, 0, -1] == 255 and shown[0, 0, 0] == 0
    assert (shown[1] == 0).all() and (np.diff(HEAT_COLORS.astype(int).sum(1)) >= 0).mean() > 0.9
