"""Image files of any mode as squares of one size, and the images of a dataset with their captions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from afterglow.errors import AfterglowError, shown

Image.init()
# Without the formats that Pillow hands to another program or library, or recognizes but cannot decode.
FORMATS = sorted(set(Image.OPEN) - {"EPS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "MPEG"})
IMAGE_SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)


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


def open_image(file: Path | IO[bytes]) -> Image.Image:
    """Open an image file in one of FORMATS; only regular files are opened, because a pipe would never end."""
    if isinstance(file, Path) and not file.is_file():
        raise FileNotFoundError(file)
    return Image.open(file, formats=FORMATS)


def read_image(file: Path) -> Image.Image:
    """Read the first frame of an image file, upright and `opaque`; raises AfterglowError that names the file."""
    try:
        with open_image(file) as image:
            return upright(image)
    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, struct.error and more
        raise AfterglowError(f"Image '{shown(file, 150)}' is missing or cannot be read ({reason(error)}).") from error


def reason(error: Exception) -> str:
    """Return why an image cannot be read, for messages."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return "no known image format" if isinstance(error, UnidentifiedImageError) else shown(error, 80) or type(error).__name__


def upright(image: Image.Image) -> Image.Image:
    """Return the image `opaque` and turned as its EXIF orientation says."""
    ImageOps.exif_transpose(image, in_place=True)
    return opaque(image)


def opaque(image: Image.Image) -> Image.Image:
    """Return an image in mode RGB or L (docs/guides/own-data.md#images).

    Args:
        image: transparent pixels become white, 16-bit values are divided by 257, floating-point values are multiplied by 255.

    Raises:
        ValueError: if floating-point values lie outside [0, 1], or 32-bit integers do not span 16 bits.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.info.get("transparency")))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa", "P") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("RGB", "L") else image.convert("L" if image.mode == "1" else "RGB")


def _eight_bits(values: np.ndarray, transparent: int | None) -> np.ndarray:
    """Values of a gray image of 16 or 32 bits per pixel => uint8; those equal to `transparent` become white."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"its floating-point values span {low:.4g} to {high:.4g}, not 0 to 1")
        return np.round(values * 255).astype(np.uint8)
    # Pillow gives 16-bit gray files of some formats as 32-bit integers; with less than 9 bits the scale is a guess.
    if values.dtype.itemsize > 2 and (low < 0 or high > 65535 or 0 < high < 256):
        raise ValueError(f"its 32-bit integers span {low} to {high}; 16-bit values, 0 to 65535, were expected")
    scaled = ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
    return scaled if transparent is None else np.where(values == transparent, np.uint8(255), scaled)


def to_square(image: Image.Image, resolution: int, channels: int) -> np.ndarray:
    """Crop the center of an image to a square and resize it (area filter).

    Args:
        image: image of any mode and size, made `opaque` first.
        resolution: width and height of the result in pixels.
        channels: 3 for color, 1 for gray.

    Returns:
        uint8 [channels, resolution, resolution].
    """
    image = opaque(image).convert("RGB" if channels == 3 else "L")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    square = image.resize((resolution, resolution), Image.Resampling.BOX if side >= resolution else Image.Resampling.BICUBIC, box=box)
    array = np.asarray(square)
    return np.ascontiguousarray(array.transpose(2, 0, 1) if channels == 3 else array[None])
