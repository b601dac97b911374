"""The first noise that a caption says least to: magnitude (Wen et al. 2024) chooses among several (METHODS (b))."""

from dataclasses import dataclass, replace

import torch

from afterglow.mitigations.passes import first_magnitude
from afterglow.models.course import Course
from afterglow.models.denoiser import Denoiser

APART = 7_368_787  # a prime, so that candidates of neighbouring seeds are other noises


@dataclass(frozen=True)
class NoiseSelection:
    """Of several noises for each generation the one with the smallest ||Delta||_2 at the first step; the first is the seed's own."""

    candidates: int = 8

    @torch.no_grad()
    def __call__(self, model: Denoiser, course: Course) -> Course:
        best, chosen = first_magnitude(model, course), list(course.seeds)
        for turn in range(1, self.candidates):
            seeds = [seed + turn * APART for seed in course.seeds]
            found = first_magnitude(model, replace(course, seeds=seeds))
            chosen = [new if better else old for new, old, better in zip(seeds, chosen, (found < best).tolist(), strict=True)]
            best = torch.minimum(best, found)
        return replace(course, seeds=chosen, notes={**course.notes, "remedy.magnitude": best.cpu()})
