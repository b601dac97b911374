"""The mitigations of a training, as the command line asks for them."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L

from afterglow.mitigations.inference.caption_insertion import words_of
from afterglow.mitigations.inference.reanchoring import read_paraphrases
from afterglow.mitigations.training.caption_perturbation import CaptionPerturbation
from afterglow.mitigations.training.sample_dropping import SampleDropping
from afterglow.models.denoiser import Denoiser

SHARE, STRENGTH, PERCENTILE = CaptionPerturbation.share, CaptionPerturbation.strength, 99.0  # used where nothing is said


class Mitigation(L.Callback):
    """Mitigations of memorization while a model trains; without any the training is what it would be without this callback.

    Args:
        captions: how captions are perturbed: replaced by 4 random words, with 2 random words or 2 of their own inserted, one of several
            captions (paraphrases), or with noise in the text states.
        share: of the samples whose caption is perturbed (replaced, words, repeats).
        strength: standard deviation of the noise in the text states (noise).
        paraphrases: .jsonl with caption and paraphrases in each line (several).
        drop: leave samples out of the loss by the magnitude of their guidance, or by the entropy of their attention to tokens.
        threshold: over which a sample is dropped, in units of the measure; default: the percentile of the controls.
        percentile: of the last controls in the same tenth of the noise schedule.
    """

    def __init__(
        self,
        captions: Literal["replaced", "words", "repeats", "several", "noise"] | None = None,
        share: float = SHARE,
        strength: float = STRENGTH,
        paraphrases: str | None = None,
        drop: Literal["guidance_norm", "entropy"] | None = None,
        threshold: float | None = None,
        percentile: float = PERCENTILE,
    ) -> None:
        if (captions == "several") != (paraphrases is not None):
            raise ValueError("mitigation.captions several and mitigation.paraphrases FILE.jsonl need each other.")
        if threshold is not None and drop is None:
            raise ValueError("mitigation.threshold says over what a sample is dropped, and mitigation.drop does not say by which measure.")
        for option, said, used, where in (
            ("share", share != SHARE, captions in ("replaced", "words", "repeats"), "mitigation.captions replaced, words or repeats"),
            ("strength", strength != STRENGTH, captions == "noise", "mitigation.captions noise"),
            ("percentile", percentile != PERCENTILE, drop and threshold is None, "mitigation.drop without mitigation.threshold"),
        ):
            if said and not used:
                raise ValueError(f"mitigation.{option} belongs to {where}: here it would do nothing.")
        others = read_paraphrases(Path(paraphrases)) if paraphrases else {}
        self.perturbation = CaptionPerturbation(captions, share, strength, others) if captions else None
        self.dropping = SampleDropping(drop, threshold, percentile) if drop else None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(drop=self.dropping and self.dropping.by)  # values of two measures do not mix

    def state_dict(self) -> dict[str, Any]:
        return {"remembered": self.dropping.remembered} if self.dropping else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.dropping:
            self.dropping.remembered = state_dict["remembered"]

    def check(self, model: Denoiser) -> None:
        """Raises ValueError that names a mitigation where the model has no captions."""
        asked = {"captions": self.perturbation and self.perturbation.kind, "drop": self.dropping and self.dropping.by}
        names = [f"mitigation.{option} {value}" for option, value in asked.items() if value]
        if names and not model.has_text:
            raise ValueError(f"{', '.join(names)}: the mitigation is about captions, and {type(model).__name__} has none.")

    def check_captions(self, captions: Collection[str]) -> None:
        """Raises ValueError where paraphrases are given, and none is of a caption of the set."""
        if self.perturbation and self.perturbation.kind == "several" and not self.perturbation.paraphrases.keys() & set(captions):
            raise ValueError("mitigation.paraphrases: no caption of the file is one of the training set's.")

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        perturbation = self.perturbation and replace(self.perturbation, vocabulary=words_of(pl_module))
        pl_module.mitigations = tuple(mitigation for mitigation in (perturbation, self.dropping) if mitigation)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if self.dropping:
            self.dropping.settle()
