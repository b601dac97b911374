"""Other words beside the same image each time it is trained on (Somepalli et al. 2023b)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from afterglow.mitigations.inference.caption_insertion import CaptionInsertion, inserted
from afterglow.models.denoiser import Denoiser, TextConditioning, sample_generator
from afterglow.models.training_mitigation import TrainingMitigation

KINDS = ("replaced", "words", "repeats", "several", "noise")
NUM_REPLACED, NUM_INSERTED = 4, 2  # words of a caption that replaces one, words that are inserted
DRAWS, NOISE = 0xCA97, 0x4015E  # of the generators, beside those of a training's noise


@dataclass(frozen=True)
class CaptionPerturbation(TrainingMitigation):
    """What the model is told of each sample, a pure function of its seed and the number of the sample; "" is left alone.

    kind: replaced (4 random words instead of the caption), words (2 random words inserted), repeats (2 of its own words inserted),
    several (the caption or one of its paraphrases, drawn each time), noise (Gaussian noise added to the text states).
    share: of the samples, of the first three kinds; strength: standard deviation of the noise, in units of the text states.
    """

    kind: str
    share: float = 0.1
    strength: float = 0.1
    paraphrases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    vocabulary: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Captions are perturbed by one of {', '.join(KINDS)}, and not '{self.kind}'.")
        if not 0 <= self.share <= 1:
            raise ValueError(f"The share of the captions that are perturbed lies in [0, 1], and it is {self.share:g}.")
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"The strength of the noise in the text states is a number from 0, and it is {self.strength:g}.")

    def told(self, model: Denoiser, captions: Sequence[str], index: Sequence[int]) -> Sequence[str]:
        if self.kind == "noise":
            return captions
        draws = [np.random.default_rng([model.seed, DRAWS, number]) for number in index]
        return [self._said(caption, random) if caption else caption for caption, random in zip(captions, draws, strict=True)]

    def _said(self, caption: str, random: np.random.Generator) -> str:
        if self.kind == "several":
            choices = (caption, *self.paraphrases.get(caption, ()))
            return choices[random.integers(len(choices))]
        if random.random() >= self.share:
            return caption
        seed = int(random.integers(2**32))
        if self.kind == "replaced":
            return inserted("", CaptionInsertion("words", NUM_REPLACED), seed, self.vocabulary)
        return inserted(caption, CaptionInsertion(self.kind, NUM_INSERTED), seed, self.vocabulary)

    def heard(self, model: Denoiser, condition: TextConditioning, captions: Sequence[str], index: Sequence[int]) -> TextConditioning:
        if self.kind != "noise":
            return condition
        noise = torch.zeros(condition.states.shape)
        for row, (caption, number) in enumerate(zip(captions, index, strict=True)):
            if caption:  # guidance pushes away from the empty caption, at sampling without noise
                noise[row].normal_(generator=sample_generator(model.seed ^ NOISE, number))
        return replace(condition, states=condition.states + self.strength * noise.to(condition.states))
