"""The first noise that a caption says least to: magnitude (Wen et al. 2024) chooses among several (METHODS (b))."""

from dataclasses import dataclass, replace

import torch

from afterglow.mitigations.inference.passes import first_magnitude
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import SamplingSetup

APART = 7_368_787  # a prime, so that candidates of neighboring seeds are other noises


@dataclass(frozen=True)
class NoiseSelection:
    """Of several noises for each generation the one with the smallest ||Delta||_2 at the first step; the first is the seed's own."""

    candidates: int = 8

    @torch.no_grad()
    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        best, chosen = first_magnitude(model, setup), list(setup.seeds)
        for turn in range(1, self.candidates):
            seeds = [seed + turn * APART for seed in setup.seeds]
            found = first_magnitude(model, replace(setup, seeds=seeds))
            chosen = [new if better else old for new, old, better in zip(seeds, chosen, (found < best).tolist(), strict=True)]
            best = torch.minimum(best, found)
        return replace(setup, seeds=chosen, notes={**setup.notes, "mitigation.magnitude": best.cpu()})
