"""PRSS (Chen et al. 2025b; docs/methods.md#mitigations-inference): guidance from a memorized caption toward another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from afterglow.mitigations.inference.caption_insertion import CaptionInsertion, insert_words, vocabulary_of
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.guidance import CFGOutputs, classifier_free_guidance, delta_norm, guidance_delta
from afterglow.sampling.loop import initial_delta_norm
from afterglow.sampling.setup import SamplingSetup

NUM_RANDOM_WORDS = 4  # inserted in a caption without paraphrases


def anchored_scale(norm: Tensor, scale: float, low: float, high: float) -> Tensor:
    """s_pr of ||Delta||_2, [B]: 1 at `low`, the requested scale s at `high`, linear between, at most s.

    The authors write it s (norm - c) / (high - c) with c = (3 s - 5) / (s - 1); this is the same line, and defined at s = 1 too.
    """
    return 1 + (scale - 1) * ((norm - low) / (high - low)).clamp(max=1)


def reanchored(uncond: Tensor, original: Tensor, other: Tensor, scale: float, anchored: Tensor) -> Tensor:
    """Original + s_pr (other - original) + (s - s_pr)(other - uncond); at s_pr = 1 this is guidance with the other caption.

    Args:
        uncond: output for the empty caption, [B, C, h, w].
        original: output for the requested caption, [B, C, h, w].
        other: output for the other caption, [B, C, h, w].
        scale: s, the requested guidance scale.
        anchored: s_pr, [B].
    """
    weight = anchored[:, None, None, None].to(original)
    return original + weight * (other - original) + (scale - weight) * (other - uncond)


@dataclass(frozen=True)
class Reanchoring:
    """Replaces captions with a large ||Delta||_2 at the first step, and re-anchors guidance at steps where ||Delta||_2 is large.

    The other caption is the first candidate with ||Delta|| at most `trigger` at the first step, or the one with the smallest. At the
    steps, ||Delta|| is that of the requested caption.

    Args:
        trigger: captions with ||Delta|| above this at the first step are replaced.
        low: lower threshold of ||Delta|| at each sampler step, [T].
        high: upper threshold of ||Delta|| at each sampler step, [T].
        candidates: number of other captions tried.
        paraphrases: paraphrases by caption, which PRSS lets a language model write; random words are inserted in captions without
            paraphrases, which is not PRSS's search.
    """

    trigger: float
    low: Sequence[float]
    high: Sequence[float]
    candidates: int = 25
    paraphrases: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        original, num = setup.condition[setup.cond_slice], len(setup.captions)
        others = self._search(model, setup)
        replaced = torch.tensor([other is not None for other in others])
        changed = setup.with_prompts(model, [other or own for other, own in zip(others, setup.captions, strict=True)])

        def guide(outputs: CFGOutputs) -> Tensor:
            if not replaced.any():
                return classifier_free_guidance(outputs)
            own = model(outputs.noisy, torch.full((num,), outputs.timestep, device=outputs.noisy.device), original)
            norm = delta_norm(guidance_delta(model, outputs.uncond, own, outputs.noisy, outputs.timestep))
            low, high = self.low[outputs.index], self.high[outputs.index]
            result = reanchored(outputs.uncond, own, outputs.cond, outputs.scale, anchored_scale(norm, outputs.scale, low, high))
            large = replaced.to(norm.device) & (norm > low)
            return torch.where(large[:, None, None, None], result, classifier_free_guidance(outputs))

        return replace(changed, guide=guide, extras={**setup.extras, "mitigation.replaced": replaced.float()})

    def _search(self, model: Denoiser, setup: SamplingSetup) -> list[str | None]:
        """The other caption of each image, None if its own is kept; one batch over the images for each candidate."""
        large = initial_delta_norm(model, setup).cpu() > self.trigger
        best = torch.full((len(large),), torch.inf)
        result: list[str | None] = [None] * len(large)
        vocabulary = vocabulary_of(model)
        for number in range(self.candidates):
            searching = large & (best > self.trigger)
            if not searching.any():
                break
            others = [self._candidate(text, seed, number, vocabulary) for text, seed in zip(setup.captions, setup.seeds, strict=True)]
            captions = [other or text for other, text in zip(others, setup.captions, strict=True)]
            norms = initial_delta_norm(model, setup.with_prompts(model, captions)).cpu()
            for row in (searching & (norms < best)).nonzero()[:, 0].tolist():
                if others[row] is not None:
                    best[row], result[row] = norms[row], others[row]
        return result

    def _candidate(self, caption: str, seed: int, number: int, vocabulary: Sequence[str]) -> str | None:
        paraphrases = self.paraphrases.get(caption)
        if paraphrases is not None:
            return paraphrases[number] if number < len(paraphrases) else None
        return insert_words(caption, CaptionInsertion("words", NUM_RANDOM_WORDS), seed * self.candidates + number, vocabulary)
