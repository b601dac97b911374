import numpy as np
import pytest
from PIL import Image

from afterglow.datasets.images import CaptionedImages, to_square


def test_the_middle_square_is_kept_and_averaged() -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    blocks = wide[:, 4:8].reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))  # the plain mean of each block of 2x2
    small = to_square(Image.fromarray(wide), 2, 3)
    assert np.abs(small.transpose(1, 2, 0) - blocks).max() <= 1  # Pillow rounds once per direction
    assert (to_square(Image.fromarray(wide.transpose(1, 0, 2)), 2, 3) == small.transpose(0, 2, 1)).all()


def test_a_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (to_square(Image.fromarray(pixels), 8, 3).transpose(1, 2, 0) == pixels).all()
    assert to_square(Image.fromarray(pixels[:4, :4]), 8, 3).shape == (3, 8, 8)  # enlarged


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_background_is_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    assert (to_square(image, 4, 3) == 255).all()


def test_gray_follows_the_weights_of_the_standard() -> None:
    gray = to_square(Image.new("RGB", (4, 4), (200, 100, 50)), 4, 1)
    assert gray.shape == (1, 4, 4) and abs(int(gray[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1
    assert to_square(Image.new("L", (4, 4), 90), 4, 3).tolist() == np.full((3, 4, 4), 90).tolist()


def test_captioned_images_check_their_shapes() -> None:
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    assert len(CaptionedImages(pixels, ("a", "b"), ("1", "2"), np.array([-1, -1]), True)) == 2
    for wrong in ((pixels.astype(float), ("a", "b")), (pixels, ("a",)), (pixels[0], ("a", "b"))):
        with pytest.raises(AssertionError):
            CaptionedImages(*wrong, ("1", "2"), np.array([-1, -1]), True)
