"""Images inside an HTML page: pixels as data URIs, masks as outlines over them."""

import base64
import io
from dataclasses import dataclass
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
    exact = max(pixels.shape[-2:]) <= LARGEST_EXACT
    file = io.BytesIO()
    _image(pixels).save(file, "PNG" if exact else "JPEG", optimize=True, quality=90)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"


def outline(mask: np.ndarray) -> str:
    """SVG path along the edges of a mask, bool [H, W]; the border of the image counts as an edge."""
    padded = np.pad(mask, 1)
    below = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # edge above pixel (y, x)
    beside = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    return "".join([f"M{x} {y}h1" for y, x in below] + [f"M{x} {y}v1" for y, x in beside])


def heat(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at image size, from its smallest value (dark) to its largest (light), uint8 [3, H, W]."""
    whole = resize(torch.from_numpy(values.astype(np.float32))[None], torch.Size(size))[0].numpy()
    low, high = whole.min(), whole.max()
    unit = (whole - low) / (high - low) if high > low else np.zeros_like(whole)
    return HEAT_COLORS[np.minimum((unit * 256).astype(int), 255)].transpose(2, 0, 1)


def read_pixels(path: Path) -> np.ndarray:
    """An image file as uint8 [C, H, W]."""
    return _array(Image.open(path))


def _array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
