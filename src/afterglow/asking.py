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

from afterglow.collect import (
    NEEDS_TEXT,
    Capture,
    Order,
    Sampler,
    annotate,
    annotate_prompts,
    assign,
    capture_for,
    self_attention_layers,
    text_layers,
    with_latent_difference,
    with_patch_distance,
)
from afterglow.collect.embeddings import PatchTokens, patch_tokens, sscd, with_copy_similarity, with_split_product
from afterglow.collect.quality import clip_agreement, mean_tokens, with_agreement, with_features
from afterglow.data.dealer import plant
from afterglow.data.module import planted_of_run
from afterglow.data.plants import PlantedSet, Planting
from afterglow.data.prompts import read_prompts, with_labels
from afterglow.data.sources import load_pictures
from afterglow.data.subjects import CAPTURED, Subject, subjects, unprompted
from afterglow.evidence import Evidence
from afterglow.measures.remedied import PIXELS, pixel_features
from afterglow.measures.table import ANY_MEASURES, Measure, chosen, maps_of, named, needs_of, scores_of
from afterglow.models import Denoiser

LATENTS = "derived.latent_difference"
Finish = Callable[[Evidence, list[int]], Evidence]


NOTHING = Planting(num_global=0, num_local=0, num_decoys=0, num_tints=0, num_fills=0, num_moving=0, num_heldout=0, phantoms=False)
NUM_IMAGES, NUM_UNPROMPTED = 4, 256  # of a caption; of a model without text


@dataclass(frozen=True)
class Asked:
    """captions to ask for; finish: adds the truth to their generations, given the row of each; about: for the settings' file.

    heldout: the pictures of the held-out captions, uint8 [N, C, H, W], where there are any.
    """

    captions: Sequence[str]
    finish: Finish
    about: Mapping[str, Any] = field(default_factory=dict)
    heldout: Tensor | None = None


def asked_of(model: Denoiser, args: Namespace, needs: set[str]) -> tuple[Asked, Order]:
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
        asked = ask_unprompted(model, planted, args.num_images or NUM_UNPROMPTED, needs)
        return asked, Order(asked.captions, 1, args.seed, "prompt", args.batch_size)
    if args.source:
        raise ValueError(f"--source is for models without text, and {name} is asked for captions: say --prompts LIST, or --planted RUN.")
    if args.planted:
        asked = ask_planted(model, args.planted, num_controls=args.controls, needs=needs)
    else:
        asked = ask_prompts(model, args.prompts, kind=args.kind, labels=args.labels, needs=needs)
    return asked, Order(asked.captions, args.num_images or NUM_IMAGES, args.seed, args.seed_rule, args.prompts_per_part)


def training_set(
    model: Denoiser, *, planted: Path | None, source: str | None, folder: str | None, set_size: int | None, seed: int = 0
) -> PlantedSet:
    """What a run was trained on, or a source (its first `set_size` pictures in the seeded order in which a training takes them).

    Raises ValueError where neither or both are named, or the pictures are no such pictures as the model makes.
    """
    if (planted is None) == (source is None):
        raise ValueError("Say what the model is judged against: either --planted RUN, or --source NAME.")
    channels, _, side = model.picture_shape()
    if planted is not None:
        if folder is not None or set_size is not None:
            raise ValueError("--folder and --set-size choose from a --source; a run's training set is what it is.")
        found = planted_of_run(planted)
        if found.pixels.shape[1:] != model.picture_shape():
            raise ValueError(f"The pictures of '{planted}' are {found.pixels.shape[1:]}, and the model makes {model.picture_shape()}.")
    else:
        pictures = load_pictures(str(source), resolution=side, channels=channels, folder=folder)
        found = plant(pictures, NOTHING, set_size=set_size, seed=seed)
    return found.decoded(model.round_trip)


@dataclass(frozen=True)
class Some:
    """Which of a run's captions: kinds (all where None), at most `plants` of each kind that was planted, and how many held-out ones."""

    kinds: Collection[str] | None = None
    plants: int | None = None
    heldout: int = 8

    def of(self, asked: Sequence[Subject]) -> list[Subject]:
        seen: Counter[str] = Counter()
        kept = []
        for subject in asked:
            seen[subject.kind] += 1
            few = self.plants is None or subject.kind in ("control", "heldout", "unprompted") or seen[subject.kind] <= self.plants
            if few and (self.kinds is None or subject.kind in self.kinds):
                kept.append(subject)
        return kept


def ask_planted(model: Denoiser, run: Path, *, num_controls: int, needs: set[str], some: Some = Some()) -> Asked:
    """Everything a run planted and its counterparts, or some. Raises ValueError where the model makes other pictures."""
    planted = training_set(model, planted=run, source=None, folder=None, set_size=None)
    asked = some.of(subjects(planted, num_controls=num_controls, num_heldout=some.heldout))
    gallery = planted.gallery(model.device)

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        judged = annotate(evidence, [asked[row] for row in rows], gallery)
        judged = with_latent_difference(judged, model) if LATENTS in needs else judged
        return with_patch_distance(judged, gallery) if "derived.patch_distance" in needs else judged

    heldout = torch.from_numpy(np.array(planted.pixels[planted.heldout[: some.heldout]]))
    return Asked([subject.caption for subject in asked], finish, {"planted": str(run), "controls": num_controls}, heldout)


def ask_unprompted(model: Denoiser, planted: PlantedSet, count: int, needs: set[str]) -> Asked:
    """`count` generations of a model without text: each is judged by the plant (or phantom) that it copies, else by the nearest picture.

    planted: what the model was trained on, as it could give it back.
    """
    asked, gallery = unprompted(planted, count), planted.gallery(model.device)
    plants = [subject for subject in subjects(planted, num_controls=0, num_heldout=0) if subject.kind in CAPTURED]

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        about = [asked[row] for row in rows]
        if plants:
            which, near = assign(evidence.images, plants, gallery)
            about = [plants[int(which[i])] if near[i] < 1 else subject for i, subject in enumerate(about)]
        judged = annotate(evidence, about, gallery)
        return with_patch_distance(judged, gallery) if "derived.patch_distance" in needs else judged

    return Asked([subject.caption for subject in asked], finish, {"unprompted": count, "training": len(gallery.pixels)})


def ask_prompts(model: Denoiser, file: Path, *, kind: str = "prompt", labels: Path | None = None, needs: set[str]) -> Asked:
    """The captions of a list, with its pictures as references where it has them."""
    prompts = read_prompts(file, kind=kind)
    if labels is not None:
        prompts = with_labels(prompts, read_prompts(labels))

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        found = annotate_prompts(evidence, prompts, rows, model.round_trip)
        return with_latent_difference(found, model) if LATENTS in needs and found.references is not None else found

    return Asked([prompt.caption for prompt in prompts], finish, {"prompts": str(file), "kind": kind, "labels": str(labels)})


def with_embeddings(asked: Asked, args: Namespace) -> Asked:
    """The same, with SSCD similarity and patch tokens of every generation and its reference, where files are given."""
    embedding = sscd(args.sscd, args.sscd_transform) if args.sscd else None
    features = patch_tokens(args.tokens) if args.tokens else None

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        found = asked.finish(evidence, rows)
        if (embedding or features) and found.references is None:
            raise ValueError("--sscd and --tokens compare with training pictures, and the list of captions has none.")
        found = with_copy_similarity(found, embedding) if embedding else found
        return with_split_product(found, features) if features else found

    about = {**asked.about, "sscd": args.sscd and f"{args.sscd} {args.sscd_transform}", "tokens": args.tokens}
    return replace(asked, finish=finish, about=about)


def held_out_pictures(asked: Asked, features: PatchTokens | None) -> dict[str, Tensor]:
    """Features [N, D] of the held-out pictures, by name: their pixels, and an encoder's where one is given; none without pictures."""
    if asked.heldout is None:
        return {}
    return {PIXELS: pixel_features(asked.heldout)} | ({features.name: mean_tokens(features, asked.heldout)} if features else {})


def with_quality(asked: Asked, clip: str | None, features: PatchTokens | None) -> Asked:
    """The same, with each generation's agreement with its caption and its features, where encoders are given."""
    agreement = clip_agreement(clip) if clip else None

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        found = asked.finish(evidence, rows)
        found = with_agreement(found, agreement) if agreement else found
        return with_features(found, features) if features else found

    return replace(asked, finish=finish, about={**asked.about, "clip": clip, "features": features and features.name})


def sampler_options(parser: ArgumentParser) -> None:
    """How pictures are generated, on the command line."""
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
    layers = text_layers(model)
    return scores_of(layers, layers, num_steps) + maps_of(layers, num_steps)


def needs_of_names(model: Denoiser, num_steps: int, patterns: Sequence[str]) -> set[str]:
    """What the named measures need of this model; ValueError where a name is no measure's, or asks a model without text for its text."""
    table = table_of(model, num_steps)
    wanted = named(table + ANY_MEASURES, patterns)
    impossible = [m.name for m in wanted if "guidance" in m.needs or any(need.startswith(TEXT) for need in m.needs)]
    if not model.has_text and impossible and "*" not in patterns:
        raise ValueError(f"{impossible[0]} reads what a caption does, and {type(model).__name__} has no captions: the measure is absent.")
    needs = needs_of(chosen(table, patterns))
    if "*" in patterns and not self_attention_layers(model.unet):  # named by itself it is an error, which collecting says
        needs -= {"derived.self_attention"}
    return needs if model.has_text else {need for need in needs if need.partition(".")[2] not in NEEDS_TEXT}


TEXT = ("end_attention", "token_attention", *(f"derived.{name}" for name in NEEDS_TEXT))


def capture_of(needs: set[str], args: Namespace) -> Capture:
    """Just what the named measures need; an early checkpoint is compared with where one is given."""
    if not args.early:
        needs = {need for need in needs if not need.startswith("derived.early_difference")}
    return capture_for(needs, end_token=args.end_token, curvature_vectors=args.curvature_vectors)
