"""Requests of evaluations from a run, a list of prompts or a dataset."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from afterglow.datasets.prompts import read_prompts, with_labels
from afterglow.errors import AfterglowError
from afterglow.evaluation.requests import NUM_UNPROMPTED, EvalRequest, PlantedRequest, PromptRequest, UnconditionalRequest
from afterglow.evaluation.training_set import training_set
from afterglow.kinds import COPYABLE
from afterglow.models.denoiser import Denoiser
from afterglow.planting.plants import PlantedSet
from afterglow.planting.targets import Target, evaluation_targets, unconditional_targets


def select_targets(targets: Sequence[Target], kinds: Collection[str] | None, plants: int | None) -> list[Target]:
    """The targets of these kinds (None: all), of planted kinds and their counterparts the first `plants` each (None: all).

    Phantoms of whole images and those of regions count apart, so that the plants of either kind keep their own.
    """
    counts, selected = Counter[tuple[str, bool]](), []
    for target in targets:
        group = target.kind, bool(target.mask.all())
        counts[group] += 1
        few = plants is None or target.kind in ("control", "heldout") or counts[group] <= plants
        if few and (kinds is None or target.kind in kinds):
            selected.append(target)
    return selected


def copyable_targets(planted: PlantedSet) -> list[Target]:
    """The plants and phantoms that an unprompted generation can be a copy of."""
    return [target for target in evaluation_targets(planted, num_controls=0, num_heldout=0) if target.kind in COPYABLE]


def planted_request(
    model: Denoiser,
    run: Path,
    *,
    num_controls: int = 64,
    num_heldout: int = 8,
    kinds: Collection[str] | None = None,
    plants: int | None = None,
    requires: Collection[str] = (),
) -> EvalRequest:
    """The plants, phantoms, decoys, tints, controls and held-out captions of a run, or those of `select_targets`.

    requires: inputs of measures (`required_inputs`).

    Raises:
        AfterglowError: if the folder is no run, or the model makes images of another size.
    """
    planted = training_set(model, planted=run)
    targets = select_targets(evaluation_targets(planted, num_controls=num_controls, num_heldout=num_heldout), kinds, plants)
    heldout = torch.from_numpy(np.array(planted.pixels[planted.heldout[:num_heldout]]))
    metadata = {"planted": str(run), "controls": num_controls}
    request = PlantedRequest(targets=targets, gallery=planted.gallery(model.device), metadata=metadata, heldout=heldout)
    return request.with_inputs(model, requires)


def prompt_request(
    model: Denoiser, file: Path, *, kind: str = "prompt", labels: Path | None = None, requires: Collection[str] = ()
) -> EvalRequest:
    """The prompts of a file (.jsonl, .csv, .txt).

    Args:
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
    return PromptRequest(targets=prompts, reconstruct=model.reconstruct, metadata=metadata).with_inputs(model, requires)


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
    """The request that a command line describes: prompts, or a run folder (planted), or for a model without text a dataset (source).

    The other arguments are those of `prompt_request`, `planted_request` and `training_set`; num_images: of an unconditional model.

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
        targets, gallery = unconditional_targets(training, num_images), training.gallery(model.device)
        metadata = {"unprompted": num_images, "training": len(gallery.pixels)}
        request = UnconditionalRequest(targets=targets, candidates=copyable_targets(training), gallery=gallery, metadata=metadata)
        return request.with_inputs(model, requires)
    if planted is not None:
        return planted_request(model, planted, num_controls=num_controls, requires=requires)
    if prompts is None:
        raise AfterglowError(f"--dataset is for models without captions, and {name} has captions: use --prompts FILE or --run RUN.")
    return prompt_request(model, prompts, kind=kind, labels=labels, requires=requires)
