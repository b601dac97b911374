"""Images as W&B shows them: grids instead of single files, enlarged, with masks as layers and as contours."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import wandb

SMALLEST_CELL = 64  # pixels; smaller images are upscaled so that they can be seen
LAYERS = {"planted": 1, "predicted": 2}  # one id per layer and one dictionary for all: W&B mixes the labels of a table's layers otherwise
COLORS = {"planted": (0, 114, 178), "predicted": (213, 94, 0)}  # of the contours, from the palette of Okabe and Ito


def tile(cells: np.ndarray, *, columns: int | None = None, fill: int = 255) -> np.ndarray:
    """Arrange cells [B, C, H, W] row by row, with a line of one pixel of value `fill` between them, as [C, H', W']."""
    columns = columns or int(np.ceil(np.sqrt(len(cells))))
    rows = -(-len(cells) // columns)
    cells = np.pad(cells, ((0, rows * columns - len(cells)), (0, 0), (0, 1), (0, 1)), constant_values=fill)
    _, channels, height, width = cells.shape
    grid = cells.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    return grid.reshape(channels, rows * height, columns * width)[:, :-1, :-1]


def enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Repeat the pixels of the last two axes."""
    return pixels.repeat(factor, -2).repeat(factor, -1)


def factor_of(cells: np.ndarray) -> int:
    """The whole factor by which cells [B, C, H, W] are at least SMALLEST_CELL wide."""
    return max(1, -(-SMALLEST_CELL // cells.shape[-1]))


def to_pil_image(pixels: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] as an image."""
    assert pixels.dtype == np.uint8, pixels.dtype
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def image_grid(cells: np.ndarray, caption: str) -> "wandb.Image":
    """Images, uint8 [B, C, H, W], as one."""
    import wandb

    return wandb.Image(to_pil_image(enlarged(tile(cells), factor_of(cells))), caption=caption)


def masked_grid(cells: np.ndarray, masks: Mapping[str, np.ndarray], caption: str, *, columns: int | None = None) -> "wandb.Image":
    """Images as one, the contours of their masks {layer: bool [B, H, W]} drawn, and the masks as layers that can be toggled."""
    import wandb

    factor = factor_of(cells)
    grid = enlarged(tile(cells, columns=columns), factor)
    layers = {name: enlarged(tile(mask[:, None], columns=columns, fill=0)[0], factor) for name, mask in masks.items()}
    labels = {number: name for name, number in LAYERS.items()}
    toggles = {name: {"mask_data": layer * np.uint8(LAYERS[name]), "class_labels": labels} for name, layer in layers.items()}
    return wandb.Image(to_pil_image(with_contours(grid, layers)), caption=caption, masks=toggles or None)


def with_contours(pixels: np.ndarray, layers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw the edges of masks {layer: bool [H, W]} into an image [C, H, W]: planted just inside, predicted just outside of the mask."""
    drawn = pixels if len(pixels) == 3 else pixels.repeat(3, 0)
    drawn = drawn.copy()
    for name, mask in layers.items():
        around = np.stack([np.roll(mask, shift, axis) for axis in (0, 1) for shift in (1, -1)])
        edge = mask & ~around.all(0) if name == "planted" else ~mask & around.any(0)
        drawn[:, edge] = np.array(COLORS[name], dtype=np.uint8)[:, None]
    return drawn
