import numpy as np
import pytest
from PIL import Image

from afterglow.datasets.listing import _CHUNK, MAX_FAILURES, ImageList
from afterglow.errors import AfterglowError


def gray_levels(count: int) -> ImageList:
    names = [str(index) for index in range(count)]
    return ImageList("set", names, names, lambda index: Image.new("L", (4, 4), index % 251))


def test_decode_of_many_chunks_keeps_the_order() -> None:
    count = 2 * _CHUNK + 3
    pixels = gray_levels(count).decode(resolution=4, channels=1).pixels
    assert pixels[:, 0, 0, 0].tolist() == [index % 251 for index in range(count)]


def test_sample_decodes_only_its_images_in_their_order() -> None:
    opened = []

    def open_image(index: int) -> Image.Image:
        opened.append(index)
        return Image.new("L", (4, 4), index)

    names = [str(index) for index in range(100)]
    listed = ImageList("set", names, names, open_image, families=np.arange(100))
    images = listed.sample(5, seed=1).decode(4, 1)
    rows = [int(name) for name in images.names]
    assert sorted(opened) == rows == sorted(set(rows)) and len(rows) == 5
    assert images.pixels[:, 0, 0, 0].tolist() == images.families.tolist() == rows and images.captions == images.names
    assert listed.sample(5, seed=2).names != listed.sample(5, seed=1).names and listed.sample(100, seed=1) is listed


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ", and 2 other images cannot be used (1, ...)"), (500, "99 or more other")])
def test_decode_of_unreadable_images_counts_them_and_names_the_first(count: int, more: str) -> None:
    def broken(index: int) -> Image.Image:
        raise OSError("truncated\n" + "x" * 1000)

    names = [str(index) for index in range(count)]
    with pytest.raises(AfterglowError, match=r"^s: the image 0 cannot be read \(truncated") as caught:
        ImageList("s", names, names, broken).decode(4, 1)
    assert more in str(caught.value) and len(str(caught.value)) <= 300 and "\n" not in str(caught.value)
    assert MAX_FAILURES == 100


def test_decode_of_a_small_image_is_refused_unless_it_may_be_enlarged() -> None:
    small = gray_levels(1)
    with pytest.raises(AfterglowError, match="it has 4 x 4 pixels, less than the resolution 8"):
        small.decode(8, 1)
    upscaled = ImageList("set", ["0"], [""], small.open_image, upscale=True).decode(8, 1)
    assert upscaled.pixels.shape == (1, 1, 8, 8) and upscaled.families.tolist() == [-1]
