"""Shapes of planted regions: bool masks [H, W] of at most half of the image."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, label

from afterglow.errors import AfterglowError

SIDES = ("left", "right", "top", "bottom")
CORNERS = ("top left", "top right", "bottom left", "bottom right")


def _half(resolution: int, turn: int, _: np.random.Generator) -> tuple[str, np.ndarray]:
    """Left, right, top, bottom in turn."""
    mask, middle = np.zeros((resolution, resolution), dtype=bool), resolution // 2
    side = SIDES[turn % 4]
    first, last = slice(None, middle), slice(-middle, None)
    if side in ("left", "right"):
        mask[:, first if side == "left" else last] = True
    else:
        mask[first if side == "top" else last] = True
    return f"{side} half", mask


def _quadrant(resolution: int, turn: int, _: np.random.Generator) -> tuple[str, np.ndarray]:
    """The four corners in turn."""
    mask, middle = np.zeros((resolution, resolution), dtype=bool), resolution // 2
    corner = CORNERS[turn % 4]
    rows = np.s_[:middle] if corner.startswith("top") else np.s_[-middle:]
    mask[rows, :middle] = corner.endswith("left")
    mask[rows, -middle:] = corner.endswith("right")
    return f"{corner} quadrant", mask


def _box(resolution: int, _: int, __: np.random.Generator) -> tuple[str, np.ndarray]:
    """A centered box of 5/8 of the side: 39 % of the image."""
    mask, margin = np.zeros((resolution, resolution), dtype=bool), round(resolution * 3 / 16)
    mask[margin : resolution - margin, margin : resolution - margin] = True
    return "box", mask


def _rectangle(resolution: int, _: int, generator: np.random.Generator) -> tuple[str, np.ndarray]:
    """A rectangle at a random place, between an eighth and a half of the image."""
    while True:
        height, width = generator.integers(resolution // 4, resolution, size=2)
        if resolution**2 / 8 <= height * width <= resolution**2 / 2:
            break
    top, left = generator.integers(0, resolution - height + 1), generator.integers(0, resolution - width + 1)
    mask = np.zeros((resolution, resolution), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return "rectangle", mask


def _blob(resolution: int, _: int, generator: np.random.Generator) -> tuple[str, np.ndarray]:
    """The largest connected piece of smooth noise above a quantile: a fifth to a half of the image."""
    while True:
        noise = gaussian_filter(generator.standard_normal((resolution, resolution)), resolution / 6)
        pieces, _count = label(noise > np.quantile(noise, 0.6))
        mask = pieces == np.bincount(pieces[pieces > 0]).argmax()
        if 0.2 <= mask.mean() <= 0.5:
            return "blob", mask


SHAPES: dict[str, Callable[[int, int, np.random.Generator], tuple[str, np.ndarray]]] = {
    "half": _half,
    "quadrant": _quadrant,
    "box": _box,
    "rectangle": _rectangle,
    "blob": _blob,
}


def region(shape: str, resolution: int, turn: int, generator: np.random.Generator) -> tuple[str, np.ndarray]:
    """Return the name and the mask, bool [H, W], of a region.

    Args:
        shape: one of SHAPES.
        resolution: width and height of the image in pixels.
        turn: number of the region among those of its shape; selects the side or corner.
        generator: draws rectangles and blobs.

    Raises:
        AfterglowError: if the shape does not exist.
    """
    if shape not in SHAPES:
        raise AfterglowError(f"There is no region shape '{shape}'; the shapes are {', '.join(SHAPES)}.")
    return SHAPES[shape](resolution, turn, generator)
