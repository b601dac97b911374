"""MemAttn's mitigation (Ren et al. 2024): attention moves from padding and end tokens to the begin token."""

from dataclasses import dataclass, replace

import torch

from afterglow.models.denoiser import Denoiser
from afterglow.sampling.attention import edit_attention
from afterglow.sampling.setup import SamplingSetup


@dataclass(frozen=True)
class AttentionScaling:
    """Scales the begin token's logit in the conditional half and masks padding in both halves, in all layers and at all steps.

    docs/methods.md#mitigations-inference. The authors' code scales every second row, which is the conditional half for one image only.

    Args:
        c1: factor of the begin token's logit.
        padding: fraction of the padding tokens that are masked, counted from the last.
    """

    c1: float = 1.25
    padding: float = 1.0

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        length = setup.condition.encoder_hidden_states.shape[1]
        # the caption's length in both halves, as in the authors' code: the empty caption keeps as many tokens
        prompt_length = setup.condition.prompt_length[setup.cond_slice]
        num_kept = prompt_length + ((1 - self.padding) * (length - prompt_length)).round().long()
        attended = (torch.arange(length, device=num_kept.device) < num_kept.repeat(2)[:, None]).to(model.device)
        context = lambda: edit_attention(model.unet, first_token=self.c1, rows=setup.cond_slice, attended=attended)  # noqa: E731
        return replace(setup, attention_context=context)
