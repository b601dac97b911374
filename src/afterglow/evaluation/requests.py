"""What a model is asked to generate, and how its generations get their ground truth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from afterglow.datasets.prompts import Prompt
from afterglow.errors import AfterglowError
from afterglow.evaluation.ground_truth import Reconstruct, attach_ground_truth, match_to_plants, prompt_targets, with_latent_difference
from afterglow.evaluation.measurements import extracted_rows, nearest_cluster_rows, region_rows, shape_rows
from afterglow.evaluation.patches import with_patch_distance
from afterglow.generations import Generations
from afterglow.measures.tables import plant_ids
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target
from afterglow.sampling.known import KnownPixels

NUM_UNPROMPTED = 256  # images of an unconditional model
SEED_RULES: Mapping[str, Callable[[int, int, int], int]] = {  # (first seed, prompt, image of the prompt) => seed
    "image": lambda first, prompt, image: first + image,  # every prompt starts from the same initial noises
    "prompt": lambda first, prompt, image: first + prompt + 1_000_003 * image,  # Wen, Chen, Ren for the first image of a prompt
    "constant": lambda first, prompt, image: first if image == 0 else first + 1_000_003 * image,  # Jeon: one seed for all prompts
}

Annotator = Callable[[Generations], Generations]


@dataclass(frozen=True)
class GenerationPlan:
    """How many images each prompt gets, and their seeds.

    Args:
        seed: first seed.
        seed_rule: "image" (all prompts share their seeds), "prompt" (seed + number of the prompt) or "constant".
        prompts_per_part: prompts in one part of a collection; an interruption loses at most one part.

    Raises:
        AfterglowError: if a number is below 1 or the rule is unknown.
    """

    num_images: int = 4
    seed: int = 0
    seed_rule: str = "image"
    prompts_per_part: int = 8

    def __post_init__(self) -> None:
        if self.num_images < 1 or self.prompts_per_part < 1:
            raise AfterglowError("num_images and prompts_per_part must be at least 1.")
        if self.seed_rule not in SEED_RULES:
            raise AfterglowError(f"The seed rule must be one of {', '.join(SEED_RULES)}, not '{self.seed_rule}'.")

    def samples(self, prompts: Iterable[int]) -> list[tuple[int, int]]:
        """(prompt, seed) of every image of these prompts, all images of a prompt together."""
        rule = SEED_RULES[self.seed_rule]
        return [(prompt, rule(self.seed, prompt, image)) for prompt in prompts for image in range(self.num_images)]

    def parts(self, num_prompts: int) -> list[range]:
        """The prompts of each part of a collection."""
        prompts = range(num_prompts)
        return [prompts[start : start + self.prompts_per_part] for start in prompts[:: self.prompts_per_part]]


@dataclass(frozen=True, kw_only=True)
class EvalRequest(ABC):
    """What a model is asked to generate, and how the generations get their ground truth.

    Args:
        targets: one per row of the request, each with a caption.
        gallery: the training images, for neighbors; without it, calibrated measures are absent.
        annotators: functions that add further inputs of measures to generations with ground truth.
        metadata: settings that a resumed collection must share.
        heldout: images of the held-out captions, uint8 [N, C, H, W].
    """

    targets: Sequence[Any]
    gallery: Gallery | None = None
    annotators: tuple[Annotator, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    heldout: Tensor | None = None

    @property
    def captions(self) -> Sequence[str]:
        """One caption per row of the request."""
        return [target.caption for target in self.targets]

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

    def known(self, samples: Sequence[tuple[int, int]]) -> KnownPixels | None:
        """Pixels that are kept of the generations of these samples, (row of the request, seed) each; None: everything is sampled."""
        return None

    def extended(self, *annotators: Annotator, **metadata: Any) -> "EvalRequest":
        """The same request with further annotators and settings."""
        return replace(self, annotators=(*self.annotators, *annotators), metadata={**self.metadata, **metadata})

    def with_inputs(self, model: Denoiser, requires: Collection[str]) -> "EvalRequest":
        """The same request; its generations get the inputs of measures that are computed after sampling."""
        added: list[Annotator] = []
        if "extras.latent_difference" in requires:
            added.append(partial(with_latent_difference, model=model))
        if "extras.patch_distance" in requires and self.gallery is not None:
            added.append(partial(with_patch_distance, gallery=self.gallery))
        return self.extended(*added)


@dataclass(frozen=True, kw_only=True)
class PlantedRequest(EvalRequest):
    """Captions with their references and masks; shapes: {shape: mask, bool [1, H, W]} in which controls are evaluated too."""

    targets: Sequence[Target]
    shapes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def only(self, plant_ids: Collection[int]) -> "PlantedRequest":
        """The same request for these targets."""
        return replace(self, targets=[target for target in self.targets if target.plant_id in plant_ids])

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        return attach_ground_truth(generations, [self.targets[row] for row in rows], self.gallery)

    def complete(self, measurements: pd.DataFrame, generations: Generations) -> pd.DataFrame:
        """Add region_rows of global plants that have a region, and shape_rows of controls."""
        if self.gallery is None:
            return measurements
        by_id = {target.plant_id: target for target in self.targets}
        targets, frames = [by_id[number] for number in plant_ids(generations).tolist()], [measurements]
        if regional := [row for row, target in enumerate(targets) if target.kind == "global" and not target.region.all()]:
            inside = [replace(targets[row], mask=targets[row].region) for row in regional]
            frames.append(region_rows(attach_ground_truth(generations[regional], inside, self.gallery)))
        if controls := [row for row, target in enumerate(targets) if target.kind == "control"]:
            for shape, mask in self.shapes.items():
                inside = [replace(targets[row], mask=mask) for row in controls]
                frames.append(shape_rows(attach_ground_truth(generations[controls], inside, self.gallery), shape))
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class UnconditionalRequest(EvalRequest):
    """Generations of a model without text; each is matched to the plant or phantom that it copies, if any.

    Args:
        candidates: the plants and phantoms that a generation can copy.
        append: add each matched generation a second time with its plant's ground truth (a training's evaluations), instead of
            replacing its ground truth (collections).
    """

    targets: Sequence[Target]
    candidates: Sequence[Target]
    append: bool = False

    def only(self, plant_ids: Collection[int]) -> "UnconditionalRequest":
        """The same request: generations are matched to all plants, whichever of them are in question."""
        return self

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        assert self.gallery is not None
        targets, matched = [self.targets[row] for row in rows], dict[int, Target]()
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
        """Replace plant_memorized of matched plants by extracted_rows of all plants; add the clusters of unmatched generations."""
        matched = [row for row, kind in enumerate(generations.kind) if kind != "unprompted"]
        total = len(generations) - len(matched) if self.append else len(generations)
        own = measurements[~measurements["measure"].str.startswith("plant_memorized") | (measurements["kind"] == "unprompted")]
        tables = [own, nearest_cluster_rows(generations), extracted_rows(generations[matched], self.candidates, total)]
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class PromptRequest(EvalRequest):
    """Captions with their image as the reference where the list names one.

    Args:
        reconstruct: a latent model's autoencoder, uint8 [B, C, H, W] to the same.

    Raises:
        AfterglowError: if only some prompts have an image.
    """

    targets: Sequence[Prompt]
    reconstruct: Reconstruct = lambda images: images

    def __post_init__(self) -> None:
        missing = [prompt for prompt in self.targets if prompt.image is None]
        if 0 < len(missing) < len(self.targets):
            raise AfterglowError(
                f"The caption '{missing[0].caption}' has no image, but others have: put the {len(missing)} without an image into "
                "another list."
            )

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        _, channels, side, _ = generations.images.shape
        targets = prompt_targets(self.targets, rows, (channels, side), self.reconstruct)
        generations = replace(generations, provenance={**generations.provenance, "prompts": len(self.targets)})
        generations = attach_ground_truth(generations, targets, None)
        mask = generations.region if generations.references is not None else None  # an empty mask stays empty
        return replace(generations, eval_mask=mask, region=mask)


def as_request(targets: EvalRequest | Sequence[Target] | Sequence[str]) -> EvalRequest:
    """A request from targets or from bare captions; a request is returned as it is."""
    if isinstance(targets, EvalRequest):
        return targets
    if all(isinstance(target, str) for target in targets):
        return PromptRequest(targets=[Prompt(str(caption), "prompt") for caption in targets])
    return PlantedRequest(targets=[target for target in targets if isinstance(target, Target)])
