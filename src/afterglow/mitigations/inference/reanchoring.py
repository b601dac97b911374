"""PRSS (Chen et al. 2025b, METHODS (a)): another caption is searched, and guidance pushes from the memorized one to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from afterglow.mitigations.inference.caption_insertion import CaptionInsertion, inserted, words_of
from afterglow.mitigations.inference.passes import first_magnitude, guidance_delta, magnitude
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import CFGOutputs, SamplingSetup, classifier_free_guidance

WORDS = 4  # random words that make another caption where no paraphrase is given


def anchored_scale(norm: Tensor, scale: float, low: float, high: float) -> Tensor:
    """s_pr: 1 at `low`, s at `high`, linear between and not above s; norm: [B].

    The authors write it s (norm - c) / (high - c) with c = (3 s - 5) / (s - 1); this is the same line, and exists at s = 1 too.
    """
    return 1 + (scale - 1) * ((norm - low) / (high - low)).clamp(max=1)


def reanchored(uncond: Tensor, asked: Tensor, other: Tensor, scale: float, own: Tensor) -> Tensor:
    """Asked + s_pr (other - asked) + (s - s_pr)(other - uncond); own: s_pr, [B]. At s_pr = 1 it is guidance with the other caption."""
    share = own[:, None, None, None].to(asked)
    return asked + share * (other - asked) + (scale - share) * (other - uncond)


@dataclass(frozen=True)
class Reanchoring:
    """Captions with ||Delta|| above `trigger` at the first step are replaced and re-anchored at steps where ||Delta|| is above `low`.

    The other caption is the first of `candidates` with ||Delta|| at most `trigger` at the first step, else that with the smallest.
    low, high: at each sampler step. paraphrases: of captions, as PRSS has a language model write; a caption without any is given
    random words instead, which is not PRSS's search. ||Delta|| is the asked caption's.
    """

    trigger: float
    low: Sequence[float]
    high: Sequence[float]
    candidates: int = 25
    paraphrases: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        asked, num = setup.condition[setup.half], len(setup.captions)
        moved = self._search(model, setup)
        replaced = torch.tensor([new is not None for new in moved])
        said = setup.told(model, [new or old for new, old in zip(moved, setup.captions, strict=True)])

        def guide(halves: CFGOutputs) -> Tensor:
            if not replaced.any():
                return classifier_free_guidance(halves)
            before = model(halves.noisy, torch.full((num,), halves.timestep, device=halves.noisy.device), asked)
            norm = magnitude(guidance_delta(model, halves.uncond, before, halves.timestep))
            low, high = self.low[halves.index], self.high[halves.index]
            turned = reanchored(halves.uncond, before, halves.cond, halves.scale, anchored_scale(norm, halves.scale, low, high))
            over = replaced.to(norm.device) & (norm > low)
            return torch.where(over[:, None, None, None], turned, classifier_free_guidance(halves))

        return replace(said, guide=guide, notes={**setup.notes, "mitigation.replaced": replaced.float()})

    def _search(self, model: Denoiser, setup: SamplingSetup) -> list[str | None]:
        """The other caption of each generation, None where its own is kept; every candidate in one batch over the generations."""
        over = first_magnitude(model, setup).cpu() > self.trigger
        best = torch.full((len(over),), torch.inf)
        found: list[str | None] = [None] * len(over)
        vocabulary = words_of(model)
        for turn in range(self.candidates):
            open_rows = over & (best > self.trigger)
            if not open_rows.any():
                break
            others = [self._candidate(text, seed, turn, vocabulary) for text, seed in zip(setup.captions, setup.seeds, strict=True)]
            said = [other or text for other, text in zip(others, setup.captions, strict=True)]
            norms = first_magnitude(model, setup.told(model, said)).cpu()
            for row in (open_rows & (norms < best)).nonzero()[:, 0].tolist():
                if others[row] is not None:
                    best[row], found[row] = norms[row], others[row]
        return found

    def _candidate(self, caption: str, seed: int, turn: int, vocabulary: Sequence[str]) -> str | None:
        given = self.paraphrases.get(caption)
        if given is not None:
            return given[turn] if turn < len(given) else None
        return inserted(caption, CaptionInsertion("words", WORDS), seed * self.candidates + turn, vocabulary)


def read_paraphrases(file: Path) -> dict[str, list[str]]:
    """{caption: paraphrases} of a .jsonl file with both in each line; ValueError names a line without."""
    if not file.is_file():
        raise ValueError(f"There is no list of paraphrases '{file}'.")
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            found[row["caption"]] = [str(text) for text in row["paraphrases"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"'{file}', line {number}: an object with caption and paraphrases was expected.") from error
    return found
