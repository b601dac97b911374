"""Captions changed each time their image is trained on (Somepalli et al. 2023b; docs/methods.md#mitigations-training).

Each change is a pure function of the model's seed and the number of the sample; the empty caption stays empty.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from afterglow.errors import AfterglowError
from afterglow.functional.philox import Stream, random_normal
from afterglow.mitigations.inference.caption_insertion import CaptionInsertion, insert_words, read_paraphrases, vocabulary_of
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser, TrainingMitigation

NUM_REPLACED, NUM_INSERTED = 4, 2  # words of a caption that replaces another, words that are inserted
CAPTION_SEED = 0xCA97  # separates these draws from those of the training noise


class _CaptionPerturbation(TrainingMitigation):
    """Changes a fraction of the captions; subclasses say how."""

    def __init__(self, fraction: float = 0.1) -> None:
        if not 0 <= fraction <= 1:
            raise AfterglowError(f"{type(self).__name__}: fraction must lie in [0, 1], not {fraction:g}.")
        self.fraction = fraction
        self.vocabulary: Sequence[str] = ()

    def setup(self, model: Denoiser, captions: Collection[str]) -> None:
        self.vocabulary = vocabulary_of(model)

    def perturb_captions(self, model: Denoiser, captions: Sequence[str], index: Sequence[int]) -> Sequence[str]:
        generators = [np.random.default_rng([model.seed, CAPTION_SEED, number]) for number in index]
        return [self._change(caption, random) if caption else caption for caption, random in zip(captions, generators, strict=True)]

    def _change(self, caption: str, random: np.random.Generator) -> str:
        return caption if random.random() >= self.fraction else self._replace(caption, int(random.integers(2**32)))

    def _replace(self, caption: str, seed: int) -> str:
        raise NotImplementedError


class RandomCaption(_CaptionPerturbation):
    """RC: a fraction of the captions is replaced by 4 random words.

    Args:
        fraction: fraction of the samples whose caption is replaced.
    """

    def _replace(self, caption: str, seed: int) -> str:
        return insert_words("", CaptionInsertion("words", NUM_REPLACED), seed, self.vocabulary)


class RandomTokens(_CaptionPerturbation):
    """RT: 2 random words are inserted in a fraction of the captions.

    Args:
        fraction: fraction of the samples whose caption is changed.
    """

    def _replace(self, caption: str, seed: int) -> str:
        return insert_words(caption, CaptionInsertion("words", NUM_INSERTED), seed, self.vocabulary)


class CaptionWordRepetition(_CaptionPerturbation):
    """CWR: 2 of its own words are inserted in a fraction of the captions.

    Args:
        fraction: fraction of the samples whose caption is changed.
    """

    def _replace(self, caption: str, seed: int) -> str:
        return insert_words(caption, CaptionInsertion("repeats", NUM_INSERTED), seed, self.vocabulary)


class MultipleCaptions(_CaptionPerturbation):
    """MC: the caption or one of its paraphrases, drawn each time.

    Args:
        paraphrases: .jsonl file with `caption` and `paraphrases` in each line.
    """

    def __init__(self, paraphrases: str) -> None:
        super().__init__(fraction=1.0)
        self.paraphrases = read_paraphrases(Path(paraphrases))

    def setup(self, model: Denoiser, captions: Collection[str]) -> None:
        if not self.paraphrases.keys() & set(captions):
            raise AfterglowError("MultipleCaptions: the file of paraphrases has no caption of the training set.")

    def _change(self, caption: str, random: np.random.Generator) -> str:
        choices = (caption, *self.paraphrases.get(caption, ()))
        return choices[random.integers(len(choices))]


class GaussianNoise(TrainingMitigation):
    """GN: Gaussian noise is added to the encoded captions.

    Args:
        std: standard deviation of the noise, in units of the text encoder's hidden states.
    """

    def __init__(self, std: float = 0.1) -> None:
        if not 0 <= std < float("inf"):
            raise AfterglowError(f"GaussianNoise: std must be a finite number from 0, not {std:g}.")
        self.std = std

    def perturb_embeddings(
        self, model: Denoiser, condition: TextConditioning, captions: Sequence[str], index: Sequence[int]
    ) -> TextConditioning:
        states = condition.encoder_hidden_states
        numbers, written = (torch.tensor(values).to(states.device, non_blocking=True) for values in (index, [*map(bool, captions)]))
        noise = random_normal(model.seed, Stream.TEXT_NOISE, numbers, states.shape[1:]) * written[:, None, None]
        return replace(condition, encoder_hidden_states=states + self.std * noise.to(states))  # the empty caption is sampled without noise
