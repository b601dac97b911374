"""Images inside an HTML page: pixels as data URIs, masks as outlines over them."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from afterglow.functional.pixels import resize

LARGEST_SIDE = 96  # pixels; larger images are reduced
LARGEST_EXACT = 32  # pixels; larger images become JPEG
HEAT_COLORS = (colormaps["cividis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class InlineImage:
    """uri: the pixels; outline: SVG path around a mask; note: text below; title: tooltip; copied: drawn with a frame."""

    uri: str
    width: int
    height: int
    title: str
    outline: str = ""
    note: str = ""
    copied: bool = False


def inline_image(pixels: np.ndarray, title: str, *, mask: np.ndarray | None = None, note: str = "", copied: bool = False) -> InlineImage:
    """An image at most LARGEST_SIDE wide.

    Args:
        pixels: uint8 [C, H, W].
        title: tooltip.
        mask: bool [H, W], drawn as an outline.
        note: text below.
        copied: draw a frame.
    """
    small = _reduced(pixels)
    height, width = small.shape[-2:]
    path = "" if mask is None else outline(_reduced(mask[None].astype(np.uint8) * 255)[0] > 127)
    return InlineImage(data_uri(small), width, height, title, path, note, copied)


def _reduced(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[-2:]
    if max(height, width) <= LARGEST_SIDE:
        return pixels
    scale = LARGEST_SIDE / max(height, width)
    return _array(_image(pixels).resize((max(1, round(width * scale)), max(1, round(height * scale)))))


def data_uri(pixels: np.ndarray) -> str:
    """uint8 [C, H, W] as PNG up to LARGEST_EXACT pixels, else as JPEG."""
    return _encoded(pixels.tobytes(), pixels.shape)


@lru_cache(maxsize=4096)  # a training shows the images of all earlier evaluations again after each evaluation
def _encoded(pixels: bytes, shape: tuple[int, ...]) -> str:
    image = _image(np.frombuffer(pixels, dtype=np.uint8).reshape(shape))
    return encoded(image, exact=max(image.size) <= LARGEST_EXACT)


def encoded(image: Image.Image, *, exact: bool) -> str:
    """An image as data URI: PNG if it has to be exact, else JPEG."""
    file = io.BytesIO()
    image.save(file, "PNG" if exact else "JPEG", optimize=True, quality=90)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"


def outline(mask: np.ndarray) -> str:
    """SVG path along the edges of a mask, bool [H, W]; the border of the image counts as an edge."""
    padded = np.pad(mask, 1)
    below = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # edge above pixel (y, x)
    beside = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    return "".join([f"M{x} {y}h1" for y, x in below] + [f"M{x} {y}v1" for y, x in beside])


def heat(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps [N, h, w] at image size, each from its smallest value (0) to its largest (255), uint8 [N, H, W]: places in HEAT_COLORS."""
    whole = resize(torch.from_numpy(values.astype(np.float32)), torch.Size(size)).numpy()
    low, high = (ends(whole, axis=(1, 2), keepdims=True) for ends in (np.min, np.max))
    return np.minimum((whole - low) / np.where(high > low, high - low, 1) * 256, 255).astype(np.uint8)


def read_pixels(path: Path) -> np.ndarray:
    """An image file as uint8 [C, H, W]."""
    return _array(Image.open(path))


def _array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
