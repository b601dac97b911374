"""What the caption changes in the prediction: magnitude (Wen et al.), score difference (mem-curv-diff), sharpness (Jeon et al.)."""

from torch import Tensor

from afterglow.functional import guidance
from afterglow.generations import Generations


def guidance_norm(generations: Generations, num_steps: int | None = None) -> Tensor:
    """mean_t ||Delta_t||_2 over the first `num_steps` sampler steps (None: all), [B]; units of eps (docs/methods.md#magnitude)."""
    assert generations.guidance is not None and generations.guidance_rms is not None
    return guidance.guidance_norm(generations.guidance_rms[:num_steps], generations.guidance[0, 0].numel())


def score_difference(generations: Generations, *, summed: bool) -> Tensor:
    """Delta_t^2 summed over channels, at the last step or over all steps, [B, h, w]; eps^2 (docs/methods.md#score-difference)."""
    assert generations.guidance is not None and generations.guidance_rms is not None
    steps = slice(None) if summed else slice(-1, None)
    return guidance.score_difference(generations.guidance[steps], generations.guidance_rms[steps])


def sharpness(generations: Generations) -> Tensor:
    """||H_c s_D - H_u s_D||_2 at the first step, [B], with s = -eps / sigma and s_D = s_c - s_u; 1 / x^2 (docs/methods.md#sharpness).

    The Jacobian-vector product is computed during sampling.
    """
    return generations.extras["sharpness"]
