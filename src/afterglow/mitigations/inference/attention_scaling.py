"""MemAttn's mitigation (Ren et al. 2024, METHODS (d)): attention is drawn from pads and end tokens to the begin token."""

from dataclasses import dataclass, replace

import torch

from afterglow.models.denoiser import Denoiser
from afterglow.sampling.attention_edit import edit_attention
from afterglow.sampling.setup import SamplingSetup


@dataclass(frozen=True)
class AttentionScaling:
    """The begin token's logit times c1 in the conditional half, pads masked in both, in all layers and at all steps.

    pads: share of the pads that are masked, counted from the last. end_too: the first end token is masked like a pad (the authors'
    --mask_length_minis1). The authors' code scales every second row, which is the conditional half for one image only.
    """

    c1: float = 1.25
    pads: float = 1.0
    end_too: bool = False

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        num, length = len(setup.captions), setup.condition.states.shape[1]
        # the caption's length in both halves, as in the authors' code: the empty caption keeps as many tokens
        said = setup.condition.prompt_length[setup.half] - int(self.end_too)
        kept = said + ((1 - self.pads) * (length - said)).round().long()
        attended = torch.arange(length, device=kept.device) < kept.repeat(2)[:, None]
        assert len(attended) == 2 * num
        return replace(
            setup, edit=lambda: edit_attention(model.unet, first_token=self.c1, rows=setup.half, attended=attended.to(model.device))
        )
