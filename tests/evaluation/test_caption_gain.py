"""Truth: a model that is told each image by its caption predicts the noise exactly; one that does not read captions gains nothing."""

import numpy as np
import torch

from afterglow.evaluation.audited_set import AuditedSet
from afterglow.evaluation.caption_gain import caption_gain
from afterglow.functional.pixels import to_signed


def test_captions_tell_a_model_that_reads_them_something(small_captioned, small_plain):
    pixels, captions = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8), tuple("aabcde")
    images = AuditedSet(pixels, captions, captions, np.arange(6), 5)  # "e" belongs to an unseen image
    model = small_captioned()
    clean = {caption: to_signed(torch.from_numpy(image)) for caption, image in zip(captions, pixels, strict=True)}

    def told(noisy, timestep, texts):
        alpha = model.scheduler.alphas_cumprod[timestep].view(-1, 1, 1, 1)
        noise = (noisy - alpha.sqrt() * torch.stack([clean[text] for text in texts])) / (1 - alpha).sqrt()
        return noise + 0.01

    model.condition, model.forward = list, told
    gain = caption_gain(model, images, batch_size=2)
    assert gain is not None and gain.low > 0 and gain.value > 2
    model.forward = lambda noisy, timestep, texts: told(noisy, timestep, ["b"] * len(texts))
    assert caption_gain(model, images, batch_size=2).value == 0
    assert caption_gain(small_plain(), images, batch_size=2) is None
    assert caption_gain(model, AuditedSet(pixels, ("a",) * 6, captions, np.arange(6), 5), batch_size=2) is None
