"""Requests from the options of a command: a run, a list of prompts, or a dataset, with the embeddings and quality that are computed."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afterglow.analysis.mitigation_effect import PIXELS
from afterglow.datasets.prompts import read_prompts, with_labels
from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError
from afterglow.evaluation.embeddings import PatchTokens, patch_tokens, sscd, with_copy_similarity, with_split_product
from afterglow.evaluation.quality import clip_agreement, mean_patch_tokens, with_agreement, with_features
from afterglow.evaluation.requests import Annotator, EvalRequest, PlantedRequest, PromptRequest, UnconditionalRequest
from afterglow.functional.features import pixel_features
from afterglow.kinds import COPYABLE
from afterglow.models.denoiser import Denoiser
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.planting.runs import load_planted_set
from afterglow.planting.targets import Target, evaluation_targets, unconditional_targets

NO_PLANTS = PlantingConfig(
    num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=0, phantoms=False
)
NUM_UNPROMPTED = 256  # images of an unconditional model


def training_set(
    model: Denoiser,
    *,
    planted: Path | None = None,
    source: str | None = None,
    folder: str | None = None,
    set_size: int | None = None,
    seed: int = 0,
) -> PlantedSet:
    """The training set of a run, or a dataset by name, as the model's autoencoder reconstructs it.

    Args:
        model: gives image size and autoencoder.
        planted: run folder.
        source: name of a dataset, instead of a run folder.
        folder: the dataset's folder.
        set_size: number of images of the dataset, in the seeded order in which a training takes them; None: all.
        seed: of that order.

    Raises:
        AfterglowError: if neither or both of planted and source are given, or the images do not fit the model.
    """
    if (planted is None) == (source is None):
        raise AfterglowError("Name the training set: either --run RUN or --dataset NAME.")
    channels, _, side = model.image_shape()
    if planted is not None:
        if folder is not None or set_size is not None:
            raise AfterglowError("--data-dir and --set-size belong to --dataset; --run takes the run's whole training set.")
        training = load_planted_set(planted)
        if training.pixels.shape[1:] != model.image_shape():
            raise AfterglowError(f"The images of '{planted}' are {training.pixels.shape[1:]}, and the model makes {model.image_shape()}.")
    else:
        images = load_images(str(source), resolution=side, channels=channels, data_dir=folder)
        training = plant_images(images, NO_PLANTS, set_size=set_size, seed=seed)
    return training.reconstructed(model.reconstruct)


@dataclass(frozen=True)
class PlantFilter:
    """Selects targets of a run.

    Args:
        kinds: kinds to keep; None: all.
        plants: at most so many of each planted kind; None: all.
        heldout: number of held-out captions.
    """

    kinds: Collection[str] | None = None
    plants: int | None = None
    heldout: int = 8

    def select(self, targets: Sequence[Target]) -> list[Target]:
        """The selected targets in their order."""
        counts: Counter[str] = Counter()
        selected = []
        for target in targets:
            counts[target.kind] += 1
            few = self.plants is None or target.kind in ("control", "heldout", "unprompted") or counts[target.kind] <= self.plants
            if few and (self.kinds is None or target.kind in self.kinds):
                selected.append(target)
        return selected


def copyable_targets(planted: PlantedSet) -> list[Target]:
    """The plants and phantoms that an unprompted generation can be a copy of."""
    return [target for target in evaluation_targets(planted, num_controls=0, num_heldout=0) if target.kind in COPYABLE]


def planted_request(
    model: Denoiser, run: Path, *, num_controls: int = 64, requires: Collection[str] = (), select: PlantFilter = PlantFilter()
) -> EvalRequest:
    """The plants, phantoms, decoys, tints, controls and held-out captions of a run.

    Args:
        model: the model that will be sampled.
        run: run folder.
        num_controls: number of controls.
        requires: inputs of measures (`required_inputs`).
        select: which targets to keep.

    Raises:
        AfterglowError: if the folder is no run, or the model makes images of another size.
    """
    planted = training_set(model, planted=run)
    targets = select.select(evaluation_targets(planted, num_controls=num_controls, num_heldout=select.heldout))
    request = PlantedRequest(
        targets=targets,
        gallery=planted.gallery(model.device),
        metadata={"planted": str(run), "controls": num_controls},
        heldout=torch.from_numpy(np.array(planted.pixels[planted.heldout[: select.heldout]])),
    )
    return request.with_inputs(model, requires)


def unconditional_request(model: Denoiser, planted: PlantedSet, num_images: int, requires: Collection[str] = ()) -> EvalRequest:
    """`num_images` generations of a model without text, matched to what `planted`, its training set, contains."""
    gallery = planted.gallery(model.device)
    request = UnconditionalRequest(
        targets=unconditional_targets(planted, num_images),
        candidates=copyable_targets(planted),
        gallery=gallery,
        metadata={"unprompted": num_images, "training": len(gallery.pixels)},
    )
    return request.with_inputs(model, requires)


def prompt_request(
    model: Denoiser, file: Path, *, kind: str = "prompt", labels: Path | None = None, requires: Collection[str] = ()
) -> EvalRequest:
    """The prompts of a file (.jsonl, .csv, .txt).

    Args:
        model: the model that will be sampled.
        file: list of prompts.
        kind: kind of the prompts without a label.
        labels: another list that gives the kinds of the same captions.
        requires: inputs of measures (`required_inputs`).

    Raises:
        AfterglowError: if a file or an entry of it cannot be read.
    """
    prompts = read_prompts(file, kind=kind)
    if labels is not None:
        prompts = with_labels(prompts, read_prompts(labels))
    metadata = {"prompts": str(file), "kind": kind, "labels": str(labels)}
    return PromptRequest(prompts=prompts, reconstruct=model.reconstruct, metadata=metadata).with_inputs(model, requires)


def with_embeddings(request: EvalRequest, *, sscd_file: str | None, sscd_transform: str, tokens: str | None) -> EvalRequest:
    """The same request; its generations get their SSCD similarity and the split product with their references.

    Args:
        request: the request.
        sscd_file: SSCD's TorchScript file, or 'immaculate'; None: no SSCD.
        sscd_transform: its preprocessing.
        tokens: folder of a vision transformer; None: no split product.

    Raises:
        AfterglowError: if a file cannot be read; while annotating, if the generations have no references.
    """
    added: list[Annotator] = []
    if sscd_file:
        added.append(partial(with_copy_similarity, embedding=sscd(sscd_file, sscd_transform)))
    if tokens:
        added.append(partial(with_split_product, features=patch_tokens(tokens)))
    settings = {"sscd": sscd_file and f"{sscd_file} {sscd_transform}", "tokens": tokens}
    return replace(request, annotators=(*request.annotators, *added), metadata={**request.metadata, **settings})


def with_quality(request: EvalRequest, clip: str | None, features: PatchTokens | None) -> EvalRequest:
    """The same request; its generations get their CLIP score (clip: folder of a CLIP model) and their mean patch token."""
    added: list[Annotator] = []
    if clip:
        added.append(partial(with_agreement, agreement=clip_agreement(clip)))
    if features:
        added.append(partial(with_features, features=features))
    settings = {"clip": clip, "features": features and features.name}
    return replace(request, annotators=(*request.annotators, *added), metadata={**request.metadata, **settings})


def heldout_features(request: EvalRequest, features: PatchTokens | None) -> dict[str, Tensor]:
    """{name: features [N, D]} of the request's held-out images: their pixels, and their mean patch tokens; empty without images."""
    if request.heldout is None:
        return {}
    return {PIXELS: pixel_features(request.heldout)} | ({features.name: mean_patch_tokens(features, request.heldout)} if features else {})


def build_request(
    model: Denoiser,
    *,
    prompts: Path | None = None,
    planted: Path | None = None,
    source: str | None = None,
    folder: str | None = None,
    set_size: int | None = None,
    labels: Path | None = None,
    kind: str = "prompt",
    num_controls: int = 64,
    num_images: int = NUM_UNPROMPTED,
    requires: Collection[str] = (),
) -> EvalRequest:
    """The request that a command line describes.

    Args:
        model: the model that will be sampled.
        prompts: list of prompts; or
        planted: run folder; or
        source: dataset by name, for an unconditional model.
        folder: the dataset's folder.
        set_size: number of its images; None: all.
        labels: list that gives the kinds of the prompts.
        kind: kind of prompts without a label.
        num_controls: controls of the run.
        num_images: images of an unconditional model.
        requires: inputs of measures (`required_inputs`).

    Raises:
        AfterglowError: unless exactly one of prompts, planted and source is given, or if it does not fit the model.
    """
    if sum(value is not None for value in (prompts, planted, source)) != 1:
        raise AfterglowError("Name what to generate: exactly one of --prompts FILE, --run RUN and --dataset NAME.")
    name = type(model).__name__
    if not model.has_text:
        if prompts:
            raise AfterglowError(f"--prompts needs a model with captions, and {name} has none: use --run RUN or --dataset NAME.")
        training = training_set(model, planted=planted, source=source, folder=folder, set_size=set_size)
        return unconditional_request(model, training, num_images, requires)
    if planted is not None:
        return planted_request(model, planted, num_controls=num_controls, requires=requires)
    if prompts is None:
        raise AfterglowError(f"--dataset is for models without captions, and {name} has captions: use --prompts FILE or --run RUN.")
    return prompt_request(model, prompts, kind=kind, labels=labels, requires=requires)
