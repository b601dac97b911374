"""What the caption changes in the prediction: magnitude (Wen et al. 2024), LD (Chen et al. 2025), score-difference maps."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from afterglow.generations import Generations


def _num_values(generations: Generations) -> int:
    assert generations.guidance is not None
    return generations.guidance[0, 0].numel()


def magnitude(generations: Generations, num_steps: int | None = None) -> Tensor:
    """mean_t ||Delta_t||_2 of every generation, over the first `num_steps` sampler steps (None = all), [B]; units of eps.

    Wen et al. 2024: d[j,t] = ||eps_c - eps_u||_2 over all values of one sample (METHODS (b)).
    """
    assert generations.guidance_rms is not None
    return generations.guidance_rms[:num_steps].mean(0) * _num_values(generations) ** 0.5


def local_magnitude(generations: Generations, mask: Tensor, num_steps: int | None = None, *, area_neutral: bool = False) -> Tensor:
    """LD = mean_t ||Delta_t * m||_2 / mean(m), [B]; mask: soft [B, h, w], resized bilinearly to the grid of Delta where it differs.

    Chen et al. 2025 (METHODS (a)). A constant mask gives the magnitude; c m gives what m gives. One pass is enough: all
    Delta_t are kept, and the mask of the last step is applied to them afterwards.
    area_neutral: divided by sqrt(mean(m^2)) instead: as written, a binary mask of share a inflates LD by a^(-1/2).
    """
    assert generations.guidance is not None and generations.guidance_rms is not None
    grid = generations.guidance.shape[-2:]
    weight = resize(mask.float(), grid)
    norms = []
    for delta, rms in zip(generations.guidance[:num_steps], generations.guidance_rms[:num_steps], strict=True):
        norms.append((delta.float() * weight[:, None]).flatten(1).norm(dim=1) * rms)
    flat = weight.flatten(1)
    return torch.stack(norms).mean(0) / (flat.square().mean(1).sqrt() if area_neutral else flat.mean(1))


def score_difference(generations: Generations, *, summed: bool) -> Tensor:
    """Delta_t^2 summed over channels, at the last step or summed over all steps, [B, h, w]; units of eps squared.

    METHODS (m); the authors' (s_c - s_u)^2 is this over sigma^2. It shows what the caption predicts, copied or not: tints are its
    counter-example.
    """
    assert generations.guidance is not None and generations.guidance_rms is not None
    steps = range(len(generations.guidance)) if summed else [len(generations.guidance) - 1]
    total = torch.zeros(generations.guidance.shape[1], *generations.guidance.shape[-2:])
    for step in steps:
        delta = generations.guidance[step].float() * generations.guidance_rms[step][:, None, None, None]
        total += delta.square().sum(1)
    return total


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """[B, h, w] => [B, H, W], bilinear."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def sharpness(generations: Generations) -> Tensor:
    """||H_c s_D - H_u s_D||_2 at the first step, [B], with s = -eps / sigma and s_D = s_c - s_u; units of 1 / x^2.

    Jeon et al. 2025 (METHODS (j)): one Jacobian-vector product, made while generating.
    """
    return generations.extras["sharpness"]
