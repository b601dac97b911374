"""Shapes of planted regions: bool masks [H, W] of at most half of the image."""

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, label

from afterglow.errors import AfterglowError

SHAPES = ("half", "quadrant", "box", "rectangle", "blob")


def region(shape: str, resolution: int, turn: int, generator: np.random.Generator) -> tuple[str, np.ndarray]:
    """Return the name and the mask, bool [H, W], of a region.

    half and quadrant: the four sides or corners in turn; box: centered, 5/8 of the side, 39 % of the image; rectangle: at a random
    place, between an eighth and a half of the image; blob: a fifth to a half.

    Args:
        shape: one of SHAPES.
        turn: number of the region among those of its shape; selects the side or corner.
        generator: draws rectangles and blobs.

    Raises:
        AfterglowError: if the shape does not exist.
    """
    if shape not in SHAPES:
        raise AfterglowError(f"There is no region shape '{shape}'; the shapes are {', '.join(SHAPES)}.")
    if shape == "blob":
        return shape, _blob(resolution, generator)
    name, middle, margin = shape, resolution // 2, round(resolution * 3 / 16)
    place: Any
    if shape == "half":
        sides = {"left": np.s_[:, :middle], "right": np.s_[:, -middle:], "top": np.s_[:middle], "bottom": np.s_[-middle:]}
        side, place = list(sides.items())[turn % 4]
        name = f"{side} half"
    elif shape == "quadrant":
        vertical, horizontal = divmod(turn % 4, 2)
        place = np.s_[-middle:] if vertical else np.s_[:middle], np.s_[-middle:] if horizontal else np.s_[:middle]
        name = f"{('top', 'bottom')[vertical]} {('left', 'right')[horizontal]} quadrant"
    elif shape == "box":
        place = np.s_[margin : resolution - margin, margin : resolution - margin]
    else:
        place = _rectangle(resolution, generator)
    mask = np.zeros((resolution, resolution), dtype=bool)
    mask[place] = True
    return name, mask


def _rectangle(resolution: int, generator: np.random.Generator) -> tuple[slice, slice]:
    height = width = 0
    while not resolution**2 / 8 <= height * width <= resolution**2 / 2:
        height, width = generator.integers(resolution // 4, resolution, size=2)
    top, left = generator.integers(0, resolution - height + 1), generator.integers(0, resolution - width + 1)
    return np.s_[top : top + height, left : left + width]


def _blob(resolution: int, generator: np.random.Generator) -> np.ndarray:
    """The largest connected piece of smooth noise above a quantile."""
    while True:
        noise = gaussian_filter(generator.standard_normal((resolution, resolution)), resolution / 6)
        pieces, _ = label(noise > np.quantile(noise, 0.6))
        mask = pieces == np.bincount(pieces[pieces > 0]).argmax()
        if 0.2 <= mask.mean() <= 0.5:
            return mask
