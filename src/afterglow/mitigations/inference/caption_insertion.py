"""Random words, numbers or repetitions in a caption (Somepalli et al. 2023b), as mitigations at inference."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import SamplingSetup

LARGEST = 1_000_000  # of a random number
SHORTEST = 3  # letters of a random word


@dataclass(frozen=True)
class CaptionInsertion:
    """`count` words of one kind at random places of each caption; a pure function of caption and seed.

    kind: words (whole words of the tokenizer's vocabulary), numbers, or repeats (of the caption's own words).
    """

    kind: str
    count: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"What is inserted is one of {', '.join(KINDS)}, and not '{self.kind}'.")

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        vocabulary = words_of(model) if self.kind == "words" else []
        said = [inserted(text, self, seed, vocabulary) for text, seed in zip(setup.captions, setup.seeds, strict=True)]
        return setup.told(model, said)


KINDS: Mapping[str, Callable[[np.random.Generator, Sequence[str], Sequence[str]], str]] = {
    "words": lambda random, own, vocabulary: str(random.choice(vocabulary)),
    "numbers": lambda random, own, vocabulary: str(random.integers(LARGEST)),
    "repeats": lambda random, own, vocabulary: str(random.choice(own)),
}


def inserted(caption: str, how: CaptionInsertion, seed: int, vocabulary: Sequence[str] = ()) -> str:
    """The caption with `count` words more; one without words of its own is left as it is by repeats."""
    random = np.random.default_rng([seed, zlib.crc32(caption.encode())])
    own = caption.split()
    words = list(own)
    for _ in range(how.count if own or how.kind != "repeats" else 0):
        words.insert(int(random.integers(len(words) + 1)), KINDS[how.kind](random, own, vocabulary))
    return " ".join(words) if how.count else caption


def words_of(model: Any) -> list[str]:
    """The whole words of a model's tokenizer, CLIP's ('word</w>') or WordPiece's ('##' begins a part), in alphabetical order."""
    tokens = list(model.tokenizer.get_vocab())
    whole = [token.removesuffix("</w>") for token in tokens if token.endswith("</w>")] or tokens
    return sorted(word for word in whole if word.isascii() and word.isalpha() and word.islower() and len(word) >= SHORTEST)
