"""Outpainting: a model is given the known pixels of a plant and samples the rest (docs/methods.md#outpainting)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from afterglow.analysis.summary import CLUSTER_SIZE
from afterglow.evaluation.requests import PlantedRequest
from afterglow.functional.pixels import to_signed
from afterglow.generations import Generations
from afterglow.kinds import COPYABLE
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.plants import Plant, PlantedSet
from afterglow.planting.regions import region
from afterglow.planting.targets import Target, evaluation_targets
from afterglow.sampling.known import KnownPixels

OUTPAINTED, OUTPAINTED_FRESH = "outpainted", "outpainted_fresh"  # around a region: what was trained with it, or a held-out image
OUTPAINTED_MEASURES = ("calibrated_l2", "memorized", "nn_ratio")
RESAMPLINGS = 5  # with which the closed-form optimal model completes every plant
NUM_SURROUNDINGS = 16  # backgrounds around a region with a new background at each appearance


@dataclass(frozen=True, kw_only=True)
class OutpaintingRequest(PlantedRequest):
    """Completions of images of which the mask of a target is unknown; a target is compared with its reference inside this mask.

    Args:
        surroundings: for each target the images uint8 [V, C, H, W] that are known outside of its mask; seed s gets image s modulo V.
        name: OUTPAINTED or OUTPAINTED_FRESH, the first word of the measures.
        resamplings: how often each step of the sampler is made.
    """

    surroundings: Sequence[np.ndarray]
    name: str = OUTPAINTED
    resamplings: int = RESAMPLINGS

    @property
    def captions(self) -> Sequence[str]:
        return [""] * len(self.targets)

    def known(self, samples: Sequence[tuple[int, int]]) -> KnownPixels:
        images = np.stack([self.surroundings[row][seed % len(self.surroundings[row])] for row, seed in samples])
        masks = np.stack([~self.targets[row].mask for row, _ in samples])
        return KnownPixels(to_signed(torch.from_numpy(images)), torch.from_numpy(masks), self.resamplings)

    def complete(self, measurements: pd.DataFrame, generations: Generations) -> pd.DataFrame:
        """Keep `name`.<measure> of each completion, plant_memorized.`name` of each target and cluster_size of controls, nothing else."""
        names = {measure: f"{self.name}.{measure}" for measure in OUTPAINTED_MEASURES} | {"plant_memorized": f"plant_memorized.{self.name}"}
        names[CLUSTER_SIZE] = CLUSTER_SIZE
        rows = measurements[measurements["measure"].isin(names)]
        captions = {target.plant_id: target.caption for target in self.targets}
        return rows.assign(measure=rows["measure"].map(names), caption=rows["plant_id"].map(captions))

    def only(self, plant_ids: Collection[int]) -> "OutpaintingRequest":
        """The same request for these targets."""
        rows = [row for row, target in enumerate(self.targets) if target.plant_id in plant_ids]
        return replace(self, targets=[self.targets[row] for row in rows], surroundings=[self.surroundings[row] for row in rows])


def outpainting_requests(
    planted: PlantedSet, *, num_controls: int = 0, resamplings: int = RESAMPLINGS, gallery: Gallery | None = None
) -> list[OutpaintingRequest]:
    """The requests of a training set: plants and phantoms in their mask, whole images in one half, which the id of the target selects.

    The first request shows around a region what the model was trained with: backgrounds of the plant, members of a family. The second
    one has the targets with a region alone, and shows held-out images around it.

    Args:
        planted: the set, as the model's autoencoder reconstructs it.
        num_controls: number of controls, and of held-out images, which are completed like whole plants.
        resamplings: how often each step of the sampler is made.
        gallery: the images that the model is trained on; default: those of the set, on the CPU.
    """
    plants = {plant.plant_id: plant for plant in planted.of_kind(*COPYABLE)}
    own: list[tuple[Target, np.ndarray]] = []
    fresh: list[tuple[Target, np.ndarray]] = []
    for target in evaluation_targets(planted, num_controls=num_controls, num_heldout=num_controls):
        plant = plants.get(target.plant_id)
        if plant is not None and not target.mask.all():
            own.append((target, planted.pixels[_background_rows(planted, plant)]))
            fresh.append((target, planted.pixels[planted.heldout]))
        elif plant is not None or target.kind in ("control", "heldout"):
            row = plant.members[0] if plant is not None else target.plant_id - len(planted.plants)
            shape, half = region("half", planted.pixels.shape[-1], target.plant_id, np.random.default_rng(0))
            image = planted.pixels[row]
            about = {"cluster": int(planted.clusters[row]), "reference": image, "shape": shape, "mask": half[None], "region": half[None]}
            own.append((replace(target, **about), image[None]))
    gallery = gallery or planted.gallery()
    groups = {OUTPAINTED: own, OUTPAINTED_FRESH: fresh if len(planted.heldout) else []}
    return [
        OutpaintingRequest(
            targets=[target for target, _ in pairs],
            gallery=gallery,
            surroundings=[images for _, images in pairs],
            name=name,
            resamplings=resamplings,
        )
        for name, pairs in groups.items()
        if pairs
    ]


def _background_rows(planted: PlantedSet, plant: Plant) -> list[int]:
    """Rows of the images that the model saw around a region; for a phantom those around other plants."""
    if plant.kind == "natural" or plant.backgrounds:
        return list(plant.members if plant.kind == "natural" else plant.backgrounds)
    draw = np.random.default_rng([plant.plant_id, 0x0B7])
    return draw.choice(planted.background_pool, size=min(NUM_SURROUNDINGS, len(planted.background_pool)), replace=False).tolist()
