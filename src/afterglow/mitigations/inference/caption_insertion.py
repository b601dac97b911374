"""Random words, numbers or repetitions in a caption (Somepalli et al. 2023b), as mitigations at inference."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterglow.errors import AfterglowError
from afterglow.files import numbered_json_lines, place
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import SamplingSetup

MAX_NUMBER = 1_000_000  # of a random number
MIN_LETTERS = 3  # of a random word


@dataclass(frozen=True)
class CaptionInsertion:
    """Inserts words at random places of each caption; a pure function of caption and seed.

    Args:
        kind: words (whole words of the tokenizer's vocabulary), numbers, or repeats (of the caption's own words).
        count: number of words inserted.
    """

    kind: str
    count: int

    def __post_init__(self) -> None:
        if self.kind not in DRAW:
            raise AfterglowError(f"The inserted kind must be one of {', '.join(DRAW)}, not '{self.kind}'.")

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        vocabulary = vocabulary_of(model) if self.kind == "words" else []
        captions = [insert_words(text, self, seed, vocabulary) for text, seed in zip(setup.captions, setup.seeds, strict=True)]
        return setup.with_prompts(model, captions)


DRAW: Mapping[str, Callable[[np.random.Generator, Sequence[str], Sequence[str]], str]] = {
    "words": lambda random, own, vocabulary: str(random.choice(vocabulary)),
    "numbers": lambda random, own, vocabulary: str(random.integers(MAX_NUMBER)),
    "repeats": lambda random, own, vocabulary: str(random.choice(own)),
}


def insert_words(caption: str, insertion: CaptionInsertion, seed: int, vocabulary: Sequence[str] = ()) -> str:
    """The caption with more words, drawn from `vocabulary` for the kind words; unchanged if the kind is repeats and it has no words."""
    random = np.random.default_rng([seed, zlib.crc32(caption.encode())])
    own = caption.split()
    words = list(own)
    for _ in range(insertion.count if own or insertion.kind != "repeats" else 0):
        words.insert(int(random.integers(len(words) + 1)), DRAW[insertion.kind](random, own, vocabulary))
    return " ".join(words) if insertion.count else caption


def vocabulary_of(model: Any) -> list[str]:
    """The whole words of a model's tokenizer, CLIP's ('word</w>') or WordPiece's ('##' begins a part), in alphabetical order."""
    tokens = list(model.tokenizer.get_vocab())
    whole = [token.removesuffix("</w>") for token in tokens if token.endswith("</w>")] or tokens
    return sorted(word for word in whole if word.isascii() and word.isalpha() and word.islower() and len(word) >= MIN_LETTERS)


def read_paraphrases(file: Path) -> dict[str, list[str]]:
    """{caption: paraphrases} of a .jsonl file with `caption` and `paraphrases` in each line.

    Raises:
        AfterglowError: if there is no such file, or a line lacks one of both.
    """
    if not file.is_file():
        raise AfterglowError(f"There is no file of paraphrases '{file}'.")
    result = {}
    for number, row in numbered_json_lines(file, ("caption", "paraphrases")):
        if not isinstance(row["paraphrases"], list):
            raise AfterglowError(f"{place(file, number)}: paraphrases must be a list of captions.")
        result[str(row["caption"])] = [str(text) for text in row["paraphrases"]]
    return result
