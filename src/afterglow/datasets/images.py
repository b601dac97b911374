"""The images of one dataset at one size, with their captions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class CaptionedImages:
    """The images of one dataset.

    Attributes:
        pixels: uint8 [N, C, H, W] with C = 3 or 1 and H = W, in memory or memory-mapped.
        captions: N strings.
        names: N different strings (file name, code point), by which errors name an image.
        families: int64 [N]; images of one natural family share a number, -1 = no family.
        captions_unique: whether captions differ between images; False for class names and attributes.
        family_captions: caption of each family, without the words that differ between its members.
    """

    pixels: np.ndarray
    captions: tuple[str, ...]
    names: tuple[str, ...]
    families: np.ndarray
    captions_unique: bool
    family_captions: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.pixels)
        assert self.pixels.dtype == np.uint8 and self.pixels.ndim == 4, self.pixels.shape
        assert count == len(self.captions) == len(self.names) == len(self.families)

    def __len__(self) -> int:
        return len(self.pixels)


def to_square(image: Image.Image, resolution: int, channels: int) -> np.ndarray:
    """Crop the center of an image to a square and resize it (area filter).

    Args:
        image: image of any mode and size; a transparent background becomes white.
        resolution: width and height of the result in pixels.
        channels: 3 for color, 1 for gray.

    Returns:
        uint8 [channels, resolution, resolution].
    """
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    square = image.resize((resolution, resolution), Image.Resampling.BOX if side >= resolution else Image.Resampling.BICUBIC, box=box)
    array = np.asarray(square)
    return np.ascontiguousarray(array.transpose(2, 0, 1) if channels == 3 else array[None])
