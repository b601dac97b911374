"""Maps that know nothing of the model: a map that does not beat them locates nothing (docs/methods.md#localization-metrics)."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from afterglow.generations import Generations


def all_ones(generations: Generations) -> Tensor:
    """Constant map, [B, H, W]."""
    return torch.ones(len(generations), *generations.images.shape[-2:])


def centered_gaussian(generations: Generations) -> Tensor:
    """exp(-r^2 / 2 sigma^2) with sigma a quarter of the side, [B, H, W]: most objects are in the middle of an image."""
    height, width = generations.images.shape[-2:]
    rows, columns = torch.linspace(-2, 2, height), torch.linspace(-2, 2, width)
    return torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / 2).expand(len(generations), -1, -1)


def luminance(generations: Generations) -> Tensor:
    """Mean over channels of the generated image, [B, H, W] in [0, 1]."""
    return generations.images.float().mean(1) / 255


def local_contrast(generations: Generations) -> Tensor:
    """Standard deviation of the luminance in 3 x 3 windows, over the pixels that lie in the image, [B, H, W]."""
    # whole numbers in float64: flat areas have exactly 0 and tie, whatever their color
    light = generations.images.double().sum(1, keepdim=True)
    count, total, squares = (avg_pool2d(values, 3, 1, 1, divisor_override=1) for values in (torch.ones_like(light), light, light**2))
    deviation = (count * squares - total**2).sqrt() / count
    return (deviation[:, 0] / (255 * generations.images.shape[1])).float()
