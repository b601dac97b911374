"""Norms and maps of the guidance Delta_t = eps_c - eps_u, and indicators read from predicted noise.

T sampler steps, B samples. Delta is stored divided by its root mean square per step and sample (`rms`), so that half precision suffices.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from afterglow.functional.pixels import resize


def guidance_norm(rms: Tensor, num_values: int) -> Tensor:
    """Magnitude: mean over steps of ||Delta_t||_2, [B], in units of eps (Wen et al. 2024; docs/methods.md#magnitude).

    Args:
        rms: root mean square of Delta, float [T, B], in units of eps.
        num_values: number of values of one sample, C * h * w.

    >>> guidance_norm(torch.tensor([[1.0], [3.0]]), 4)
    tensor([4.])
    """
    return rms.mean(0) * num_values**0.5


def local_detection(delta: Tensor, rms: Tensor, mask: Tensor, *, area_neutral: bool = False) -> Tensor:
    """LD: mean over steps of ||Delta_t * m||_2, over mean(m), [B], in units of eps (Chen et al. 2025; docs/methods.md#local-detection).

    A constant mask gives the magnitude; c m gives the same value as m.

    Args:
        delta: Delta divided by its RMS, float [T, B, C, h, w].
        rms: root mean square of Delta, float [T, B], in units of eps.
        mask: soft [B, h', w'], resized bilinearly to the grid of delta.
        area_neutral: divide by sqrt(mean(m^2)) instead. As published, a binary mask that covers a share a inflates LD by a^(-1/2).
    """
    weight = resize(mask.float(), delta.shape[-2:])
    norms = [(step.float() * weight[:, None]).flatten(1).norm(dim=1) * size for step, size in zip(delta, rms, strict=True)]
    flat = weight.flatten(1)
    return torch.stack(norms).mean(0) / (flat.square().mean(1).sqrt() if area_neutral else flat.mean(1))


def score_difference(delta: Tensor, rms: Tensor) -> Tensor:
    """Delta_t^2 summed over channels and steps, [B, h, w], in units of eps^2 (mem-curv-diff 2026; docs/methods.md#score-difference).

    The authors' (s_c - s_u)^2 is this over sigma^2. The map shows what the caption predicts, copied or not: tints are its
    counter-example.

    Args:
        delta: Delta divided by its RMS, float [T, B, C, h, w].
        rms: root mean square of Delta, float [T, B], in units of eps.
    """
    total = torch.zeros(delta.shape[1], *delta.shape[-2:])
    for step, size in zip(delta, rms, strict=True):
        total += (step.float() * size[:, None, None, None]).square().sum(1)
    return total


def first_local_minimum(curve: Tensor) -> int | None:
    """Index of the first strict local minimum of a curve [T], None where there is none (Jain et al. 2025; docs/methods.md#basin)."""
    middle = curve[1:-1]
    found = ((curve[:-2] > middle) & (curve[2:] > middle)).nonzero()
    return int(found[0]) + 1 if len(found) else None


def denoising_log_ratio(errors: Tensor, heldout: Tensor, mask: Tensor) -> Tensor:
    """1/2 ln( mean over held-out images h of e(h; m, t) / e(x; m, t) ), [T], in nats: how much better x is denoised than unseen images.

    e(x; m, t) is the mean squared error inside the mask of the noise predicted for x at time t. 0: x is denoised as well as
    any unseen image; ln 2: with half the root mean square error; NaN where the mask is empty. Our definition, after membership inference by
    the denoising loss (Carlini et al. 2023; docs/methods.md#denoising-log-ratio). It needs no generated image.

    Args:
        errors: squared errors of one image, float [T, h, w].
        heldout: squared errors of held-out images, float [N, T, h, w].
        mask: bool [1, H, W], averaged down to h x w.
    """
    weight = interpolate(mask[None].float(), errors.shape[-2:], mode="area")[0, 0]
    inside = (errors * weight).sum((1, 2)) / weight.sum()
    reference = (heldout * weight).sum((2, 3)).mean(0) / weight.sum()
    return 0.5 * torch.log(reference / inside)
