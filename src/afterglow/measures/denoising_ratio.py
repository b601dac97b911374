"""A leading indicator that needs no generation: how much better an image is denoised than images that were never shown."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def advantage(errors: Tensor, heldout: Tensor, mask: Tensor) -> Tensor:
    """1/2 ln( mean over held-out images h of e(h; m, t) / e(x; m, t) ), [T], in nats of the root mean square error.

    e(x; m, t): squared error of the noise predicted for x at time t, mean inside the mask. 0: denoised there as well as any unseen
    image; ln 2: with half of the error. Our own definition, after membership inference by the denoising loss (Carlini et al. 2023).

    errors: [T, h, w] of one image; heldout: [N, T, h, w]; mask: bool [1, H, W], averaged down to h x w. NaN where the mask is empty.
    """
    weight = interpolate(mask[None].float(), errors.shape[-2:], mode="area")[0, 0]
    inside = (errors * weight).sum((1, 2)) / weight.sum()
    reference = (heldout * weight).sum((2, 3)).mean(0) / weight.sum()
    return 0.5 * torch.log(reference / inside)
