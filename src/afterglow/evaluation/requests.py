"""What a collection asks for and how its answers are judged: the plants of a run, or a list of captions."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterglow.analysis.mitigation_effect import PIXELS, pixel_features
from afterglow.datasets.prompts import read_prompts, with_labels
from afterglow.datasets.sources import load_images
from afterglow.evaluation.embeddings import PatchTokens, patch_tokens, sscd, with_copy_similarity, with_split_product
from afterglow.evaluation.ground_truth import attach_ground_truth, attach_prompt_ground_truth, with_latent_difference
from afterglow.evaluation.matching import match_to_plants
from afterglow.evaluation.patches import with_patch_distance
from afterglow.evaluation.quality import clip_agreement, mean_tokens, with_agreement, with_features
from afterglow.evaluation.store import GenerationPlan
from afterglow.generations import Generations
from afterglow.kinds import COPYABLE
from afterglow.measures.registry import ANY_MEASURES, Measure, chosen, maps_of, named, requirements, scores_of
from afterglow.models.denoiser import Denoiser
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.planting.runs import load_planted_set
from afterglow.planting.targets import Target, evaluation_targets, unconditional_targets
from afterglow.sampling.attention import self_attention_layers
from afterglow.sampling.loop import Sampler, cross_attention_of
from afterglow.sampling.observers import NEEDS_TEXT
from afterglow.sampling.recorder import CaptureConfig, capture_for

LATENTS = "extras.latent_difference"
Finish = Callable[[Generations, list[int]], Generations]


NO_PLANTS = PlantingConfig(
    num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=0, phantoms=False
)
NUM_IMAGES, NUM_UNPROMPTED = 4, 256  # of a caption; of a model without text


@dataclass(frozen=True)
class EvalRequest:
    """captions to ask for; finish: adds the truth to their generations, given the row of each; about: for the settings' file.

    heldout: the images of the held-out captions, uint8 [N, C, H, W], where there are any.
    """

    captions: Sequence[str]
    finish: Finish
    about: Mapping[str, Any] = field(default_factory=dict)
    heldout: Tensor | None = None


def build_request(model: Denoiser, args: Namespace, requires: set[str]) -> tuple[EvalRequest, GenerationPlan]:
    """What a command line asks a model for, and in which order.

    Raises ValueError where it asks for nothing or for two things, or a model without text for captions.
    """
    given = [name for name in ("prompts", "planted", "source") if getattr(args, name) is not None]
    if len(given) != 1:
        raise ValueError("Say what to ask for: one of --prompts LIST, --planted RUN and --source NAME.")
    name = type(model).__name__
    if not model.has_text:
        if args.prompts:
            raise ValueError(f"--prompts asks for captions, and {name} has none: say --planted RUN, or --source NAME.")
        planted = training_set(model, planted=args.planted, source=args.source, folder=args.folder, set_size=args.set_size)
        asked = unconditional_request(model, planted, args.num_images or NUM_UNPROMPTED, requires)
        return asked, GenerationPlan(asked.captions, 1, args.seed, "prompt", args.batch_size)
    if args.source:
        raise ValueError(f"--source is for models without text, and {name} is asked for captions: say --prompts LIST, or --planted RUN.")
    if args.planted:
        asked = planted_request(model, args.planted, num_controls=args.controls, requires=requires)
    else:
        asked = prompt_request(model, args.prompts, kind=args.kind, labels=args.labels, requires=requires)
    return asked, GenerationPlan(asked.captions, args.num_images or NUM_IMAGES, args.seed, args.seed_rule, args.prompts_per_part)


def training_set(
    model: Denoiser, *, planted: Path | None, source: str | None, folder: str | None, set_size: int | None, seed: int = 0
) -> PlantedSet:
    """What a run was trained on, or a source (its first `set_size` images in the seeded order in which a training takes them).

    Raises ValueError where neither or both are named, or the images are no such images as the model makes.
    """
    if (planted is None) == (source is None):
        raise ValueError("Say what the model is judged against: either --planted RUN, or --source NAME.")
    channels, _, side = model.image_shape()
    if planted is not None:
        if folder is not None or set_size is not None:
            raise ValueError("--folder and --set-size choose from a --source; a run's training set is what it is.")
        found = load_planted_set(planted)
        if found.pixels.shape[1:] != model.image_shape():
            raise ValueError(f"The images of '{planted}' are {found.pixels.shape[1:]}, and the model makes {model.image_shape()}.")
    else:
        images = load_images(str(source), resolution=side, channels=channels, data_dir=folder)
        found = plant_images(images, NO_PLANTS, set_size=set_size, seed=seed)
    return found.reconstructed(model.reconstruct)


@dataclass(frozen=True)
class PlantFilter:
    """Which of a run's captions: kinds (all where None), at most `plants` of each kind that was planted, and how many held-out ones."""

    kinds: Collection[str] | None = None
    plants: int | None = None
    heldout: int = 8

    def of(self, asked: Sequence[Target]) -> list[Target]:
        seen: Counter[str] = Counter()
        kept = []
        for subject in asked:
            seen[subject.kind] += 1
            few = self.plants is None or subject.kind in ("control", "heldout", "unprompted") or seen[subject.kind] <= self.plants
            if few and (self.kinds is None or subject.kind in self.kinds):
                kept.append(subject)
        return kept


def planted_request(model: Denoiser, run: Path, *, num_controls: int, requires: set[str], some: PlantFilter = PlantFilter()) -> EvalRequest:
    """Everything a run planted and its counterparts, or some. Raises ValueError where the model makes other images."""
    planted = training_set(model, planted=run, source=None, folder=None, set_size=None)
    asked = some.of(evaluation_targets(planted, num_controls=num_controls, num_heldout=some.heldout))
    gallery = planted.gallery(model.device)

    def finish(generations: Generations, rows: list[int]) -> Generations:
        judged = attach_ground_truth(generations, [asked[row] for row in rows], gallery)
        judged = with_latent_difference(judged, model) if LATENTS in requires else judged
        return with_patch_distance(judged, gallery) if "extras.patch_distance" in requires else judged

    heldout = torch.from_numpy(np.array(planted.pixels[planted.heldout[: some.heldout]]))
    return EvalRequest([subject.caption for subject in asked], finish, {"planted": str(run), "controls": num_controls}, heldout)


def unconditional_request(model: Denoiser, planted: PlantedSet, count: int, requires: set[str]) -> EvalRequest:
    """`count` generations of a model without text: each is judged by the plant (or phantom) that it copies, else by the nearest image.

    planted: what the model was trained on, as it could give it back.
    """
    asked, gallery = unconditional_targets(planted, count), planted.gallery(model.device)
    plants = [subject for subject in evaluation_targets(planted, num_controls=0, num_heldout=0) if subject.kind in COPYABLE]

    def finish(generations: Generations, rows: list[int]) -> Generations:
        about = [asked[row] for row in rows]
        if plants:
            which, near = match_to_plants(generations.images, plants, gallery)
            about = [plants[int(which[i])] if near[i] < 1 else subject for i, subject in enumerate(about)]
        judged = attach_ground_truth(generations, about, gallery)
        return with_patch_distance(judged, gallery) if "extras.patch_distance" in requires else judged

    return EvalRequest([subject.caption for subject in asked], finish, {"unprompted": count, "training": len(gallery.pixels)})


def prompt_request(model: Denoiser, file: Path, *, kind: str = "prompt", labels: Path | None = None, requires: set[str]) -> EvalRequest:
    """The captions of a list, with its images as references where it has them."""
    prompts = read_prompts(file, kind=kind)
    if labels is not None:
        prompts = with_labels(prompts, read_prompts(labels))

    def finish(generations: Generations, rows: list[int]) -> Generations:
        found = attach_prompt_ground_truth(generations, prompts, rows, model.reconstruct)
        return with_latent_difference(found, model) if LATENTS in requires and found.references is not None else found

    return EvalRequest([prompt.caption for prompt in prompts], finish, {"prompts": str(file), "kind": kind, "labels": str(labels)})


def with_embeddings(asked: EvalRequest, args: Namespace) -> EvalRequest:
    """The same, with SSCD similarity and patch tokens of every generation and its reference, where files are given."""
    embedding = sscd(args.sscd, args.sscd_transform) if args.sscd else None
    features = patch_tokens(args.tokens) if args.tokens else None

    def finish(generations: Generations, rows: list[int]) -> Generations:
        found = asked.finish(generations, rows)
        if (embedding or features) and found.references is None:
            raise ValueError("--sscd and --tokens compare with training images, and the list of captions has none.")
        found = with_copy_similarity(found, embedding) if embedding else found
        return with_split_product(found, features) if features else found

    about = {**asked.about, "sscd": args.sscd and f"{args.sscd} {args.sscd_transform}", "tokens": args.tokens}
    return replace(asked, finish=finish, about=about)


def heldout_features(asked: EvalRequest, features: PatchTokens | None) -> dict[str, Tensor]:
    """Features [N, D] of the held-out images, by name: their pixels, and an encoder's where one is given; none without images."""
    if asked.heldout is None:
        return {}
    return {PIXELS: pixel_features(asked.heldout)} | ({features.name: mean_tokens(features, asked.heldout)} if features else {})


def with_quality(asked: EvalRequest, clip: str | None, features: PatchTokens | None) -> EvalRequest:
    """The same, with each generation's agreement with its caption and its features, where encoders are given."""
    agreement = clip_agreement(clip) if clip else None

    def finish(generations: Generations, rows: list[int]) -> Generations:
        found = asked.finish(generations, rows)
        found = with_agreement(found, agreement) if agreement else found
        return with_features(found, features) if features else found

    return replace(asked, finish=finish, about={**asked.about, "clip": clip, "features": features and features.name})


def sampler_options(parser: ArgumentParser) -> None:
    """How images are generated, on the command line."""
    parser.add_argument("--steps", type=int, default=50, help="sampler steps")
    parser.add_argument("--scheduler", default="DDIMScheduler", help="any of diffusers, by its class name")
    parser.add_argument("--spacing", help="of the timesteps: trailing, leading, linspace; default: Stable Diffusion's own, else trailing")
    parser.add_argument("--guidance", type=float, default=1.0, help="1 for models trained here, 7.5 is usual for Stable Diffusion")


def sampler_of(model: Denoiser, args: Namespace) -> Sampler:
    """The sampler that these options name."""
    return Sampler(args.scheduler, args.steps, args.guidance, spacing_of(model, args.spacing))


def spacing_of(model: Denoiser, spacing: str | None) -> dict[str, Any]:
    """Options of the sampler: the spacing that is named, else a latent model's own, else trailing."""
    if spacing is None and model.grid > 1:
        return {}
    return {"timestep_spacing": spacing or "trailing"}


def table_of(model: Denoiser, num_steps: int) -> list[Measure]:
    """Every measure there could be of a model."""
    layers = cross_attention_of(model)
    return scores_of(layers, layers, num_steps) + maps_of(layers, num_steps)


def required_inputs(model: Denoiser, num_steps: int, patterns: Sequence[str]) -> set[str]:
    """What the named measures need of this model; ValueError where a name is no measure's, or asks a model without text for its text."""
    table = table_of(model, num_steps)
    wanted = named(table + ANY_MEASURES, patterns)
    impossible = [m.name for m in wanted if "guidance" in m.requires or any(need.startswith(TEXT) for need in m.requires)]
    if not model.has_text and impossible and "*" not in patterns:
        raise ValueError(f"{impossible[0]} reads what a caption does, and {type(model).__name__} has no captions: the measure is absent.")
    requires = requirements(chosen(table, patterns))
    if "*" in patterns and not self_attention_layers(model.unet):  # named by itself it is an error, which collecting says
        requires -= {"extras.self_attention"}
    return requires if model.has_text else {need for need in requires if need.partition(".")[2] not in NEEDS_TEXT}


TEXT = ("end_attention", "token_attention", *(f"extras.{name}" for name in NEEDS_TEXT))


def capture_of(requires: set[str], args: Namespace) -> CaptureConfig:
    """Just what the named measures need; an early checkpoint is compared with where one is given."""
    if not args.early:
        requires = {need for need in requires if not need.startswith("extras.early_difference")}
    return capture_for(requires, end_token=args.end_token, curvature_vectors=args.curvature_vectors)
