"""Whether the captions of images tell a model anything about them (docs/guides/audit.md#captions)."""

import numpy as np
import torch

from afterglow.evaluation.audited_set import AuditedSet
from afterglow.evaluation.denoising_loss import denoising_errors
from afterglow.functional.statistics import Estimate, t_interval
from afterglow.models.denoiser import Denoiser

MAX_SCORED_IMAGES = 64  # images


def caption_gain(model: Denoiser, images: AuditedSet, batch_size: int) -> Estimate | None:
    """How much better a model predicts the noise of images with their own captions than with captions of other images.

    Args:
        images: of the audited ones at most MAX_SCORED_IMAGES are drawn (seed 0); both captions of an image meet the same noise.
        batch_size: images at a time.

    Returns:
        log(error with the other caption / error with its own), errors as means over `loss_times` and pixels: the mean over images and its
        t interval. None for a model without text, or fewer than two captions.
    """
    rows = np.random.default_rng(0).permutation(images.count)[:MAX_SCORED_IMAGES].tolist()
    captions = [images.captions[row] for row in rows]
    if not model.has_text or len(set(captions)) < 2:
        return None
    others = [next(other for other in captions[place:] + captions if other != own) for place, own in enumerate(captions)]
    pixels = torch.from_numpy(np.stack([images.pixels[np.array([row])][0] for row in rows]))
    own, other = (denoising_errors(model, pixels, texts, batch_size=batch_size).flatten(1).mean(1) for texts in (captions, others))
    return t_interval((other / own).log().numpy())
