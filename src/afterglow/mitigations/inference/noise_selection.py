"""Selection of the initial noise by ||Delta||_2 at the first step (Wen et al. 2024; docs/methods.md#mitigations-inference)."""

from dataclasses import dataclass, replace

import torch

from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import initial_delta_norm
from afterglow.sampling.setup import SamplingSetup

SEED_STEP = 7_368_787  # a prime, so that candidates of neighboring seeds differ


@dataclass(frozen=True)
class NoiseSelection:
    """Takes, of several initial noises for each image, the one with the smallest ||Delta||_2 at the first step.

    Args:
        candidates: number of noises; the first is that of the image's own seed.
    """

    candidates: int = 8

    @torch.no_grad()
    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        best, chosen = initial_delta_norm(model, setup), list(setup.seeds)
        for candidate in range(1, self.candidates):
            seeds = [seed + candidate * SEED_STEP for seed in setup.seeds]
            norms = initial_delta_norm(model, replace(setup, seeds=seeds))
            chosen = [new if better else old for new, old, better in zip(seeds, chosen, (norms < best).tolist(), strict=True)]
            best = torch.minimum(best, norms)
        return replace(setup, seeds=chosen, extras={**setup.extras, "mitigation.magnitude": best.cpu()})
