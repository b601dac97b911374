"""What a model is evaluated on: the plants of a run, a list of prompts, or unconditional generations, each with its ground truth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from afterglow.datasets.prompts import Prompt
from afterglow.evaluation.ground_truth import Reconstruct, attach_ground_truth, attach_prompt_ground_truth, with_latent_difference
from afterglow.evaluation.matching import match_to_plants
from afterglow.evaluation.measurements import extracted_rows, region_rows, shape_rows
from afterglow.evaluation.patches import with_patch_distance
from afterglow.generations import Generations
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target

Annotator = Callable[[Generations], Generations]


@dataclass(frozen=True, kw_only=True)
class EvalRequest(ABC):
    """What a model is asked to generate, and how the generations get their ground truth.

    Args:
        gallery: the training images, for neighbors; without it, calibrated measures are absent.
        annotators: functions that add further inputs of measures to generations with ground truth.
        metadata: settings that a resumed collection must share.
        heldout: images of the held-out captions, uint8 [N, C, H, W].
    """

    gallery: Gallery | None = None
    annotators: tuple[Annotator, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    heldout: Tensor | None = None

    @property
    @abstractmethod
    def captions(self) -> Sequence[str]:
        """One caption per row of the request."""

    @abstractmethod
    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        """Add the ground truth; rows: the row of the request that each generation belongs to, [B]."""

    def annotate(self, generations: Generations, rows: Sequence[int]) -> Generations:
        """Add the ground truth and everything that the annotators add."""
        generations = self.attach(generations, rows)
        for annotator in self.annotators:
            generations = annotator(generations)
        return generations

    def complete(self, measurements: pd.DataFrame, generations: Generations) -> pd.DataFrame:
        """Add the measurements that only this kind of request has."""
        return measurements

    def with_inputs(self, model: Denoiser, requires: Collection[str]) -> "EvalRequest":
        """The same request; its generations get the inputs of measures that are computed after sampling."""
        added: list[Annotator] = []
        if "extras.latent_difference" in requires:
            added.append(partial(with_latent_difference, model=model))
        if "extras.patch_distance" in requires and self.gallery is not None:
            added.append(partial(with_patch_distance, gallery=self.gallery))
        return replace(self, annotators=(*self.annotators, *added))


@dataclass(frozen=True, kw_only=True)
class PlantedRequest(EvalRequest):
    """One caption per target.

    Args:
        targets: captions with their references and masks.
        shapes: {shape: mask, bool [1, H, W]} in which controls are judged too: the false-positive rate of these masks.
    """

    targets: Sequence[Target]
    shapes: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def captions(self) -> Sequence[str]:
        return [target.caption for target in self.targets]

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        return attach_ground_truth(generations, [self.targets[row] for row in rows], self.gallery)

    def complete(self, measurements: pd.DataFrame, generations: Generations) -> pd.DataFrame:
        """Add region_rows of global plants that have a region, and shape_rows of controls."""
        if self.gallery is None:
            return measurements
        assert generations.plant_id is not None
        by_id = {target.plant_id: target for target in self.targets}
        targets, frames = [by_id[number] for number in generations.plant_id.tolist()], [measurements]
        regional = [row for row, target in enumerate(targets) if target.kind == "global" and not target.region.all()]
        if regional:
            inside = [replace(targets[row], mask=targets[row].region) for row in regional]
            frames.append(region_rows(attach_ground_truth(generations[regional], inside, self.gallery)))
        controls = [row for row, target in enumerate(targets) if target.kind == "control"]
        for shape, mask in self.shapes.items() if controls else ():
            masked = attach_ground_truth(generations[controls], [targets[row] for row in controls], self.gallery, mask=mask)
            frames.append(shape_rows(masked, shape))
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class UnconditionalRequest(EvalRequest):
    """Generations of a model without text; each is matched to the plant or phantom that it copies, if any.

    Args:
        targets: one per generation, judged by the nearest training image.
        candidates: the plants and phantoms that a generation can copy.
        append: add each matched generation a second time with its plant's ground truth (a training's evaluations), instead of
            replacing its ground truth (collections).
    """

    targets: Sequence[Target]
    candidates: Sequence[Target]
    append: bool = False

    @property
    def captions(self) -> Sequence[str]:
        return [target.caption for target in self.targets]

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        assert self.gallery is not None
        targets = [self.targets[row] for row in rows]
        matched: dict[int, Target] = {}
        if self.candidates:
            positions, distances = match_to_plants(generations.images, self.candidates, self.gallery)
            matched = {row: self.candidates[int(positions[row])] for row in (distances < 1).nonzero()[:, 0].tolist()}
        if not self.append:
            return attach_ground_truth(generations, [matched.get(i, target) for i, target in enumerate(targets)], self.gallery)
        generations = attach_ground_truth(generations, targets, self.gallery)
        if not matched:
            return generations
        return Generations.cat([generations, attach_ground_truth(generations[list(matched)], list(matched.values()), self.gallery)])

    def complete(self, measurements: pd.DataFrame, generations: Generations) -> pd.DataFrame:
        """Replace plant_memorized of matched plants by extracted_rows of all plants."""
        matched = [row for row, kind in enumerate(generations.kind) if kind != "unprompted"]
        total = len(generations) - len(matched) if self.append else len(generations)
        own = measurements[(measurements["measure"] != "plant_memorized") | (measurements["kind"] == "unprompted")]
        return pd.concat([own, extracted_rows(generations[matched], self.candidates, total)], ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class PromptRequest(EvalRequest):
    """One caption per prompt, with its image as the reference where it has one.

    Args:
        prompts: captions, kinds and image files.
        reconstruct: a latent model's autoencoder, uint8 [B, C, H, W] to the same.
    """

    prompts: Sequence[Prompt]
    reconstruct: Reconstruct = lambda images: images

    @property
    def captions(self) -> Sequence[str]:
        return [prompt.caption for prompt in self.prompts]

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        return attach_prompt_ground_truth(generations, self.prompts, rows, self.reconstruct)


def as_request(targets: EvalRequest | Sequence[Target] | Sequence[str]) -> EvalRequest:
    """A request from targets or from bare captions; a request is returned as it is."""
    if isinstance(targets, EvalRequest):
        return targets
    if all(isinstance(target, str) for target in targets):
        return PromptRequest(prompts=[Prompt(str(caption), "prompt") for caption in targets])
    return PlantedRequest(targets=[target for target in targets if isinstance(target, Target)])
