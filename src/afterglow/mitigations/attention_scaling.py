"""MemAttn's remedy (Ren et al. 2024, METHODS (d)): attention is drawn from pads and end tokens to the begin token."""

from dataclasses import dataclass, replace

import torch

from afterglow.attention import edit
from afterglow.models.course import Course
from afterglow.models.denoiser import Denoiser


@dataclass(frozen=True)
class AttentionScaling:
    """The begin token's logit times c1 in the conditional half, pads masked in both, in all layers and at all steps.

    pads: share of the pads that are masked, counted from the last. end_too: the first end token is masked like a pad (the authors'
    --mask_length_minis1). The authors' code scales every second row, which is the conditional half for one image only.
    """

    c1: float = 1.25
    pads: float = 1.0
    end_too: bool = False

    def __call__(self, model: Denoiser, course: Course) -> Course:
        assert course.condition is not None
        num, length = len(course.captions), course.condition.states.shape[1]
        # the caption's length in both halves, as in the authors' code: the empty caption keeps as many tokens
        said = course.condition.prompt_length[course.half] - int(self.end_too)
        kept = said + ((1 - self.pads) * (length - said)).round().long()
        attended = torch.arange(length, device=kept.device) < kept.repeat(2)[:, None]
        assert len(attended) == 2 * num
        return replace(course, edit=lambda: edit(model.unet, first_token=self.c1, rows=course.half, attended=attended.to(model.device)))
