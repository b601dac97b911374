"""What a collection asks for and how its answers are judged: the plants of a run, or a list of captions."""

from argparse import Namespace
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
    annotate,
    annotate_prompts,
    capture_for,
    text_layers,
    with_latent_difference,
    with_patch_distance,
)
from afterglow.collect.embeddings import PatchTokens, patch_tokens, sscd, with_copy_similarity, with_split_product
from afterglow.collect.quality import clip_agreement, mean_tokens, with_agreement, with_features
from afterglow.data.module import planted_of_run
from afterglow.data.prompts import read_prompts, with_labels
from afterglow.data.subjects import Subject, subjects, unprompted
from afterglow.evidence import Evidence
from afterglow.measures.remedied import PIXELS, pixel_features
from afterglow.measures.table import ANY_MEASURES, Measure, chosen, maps_of, named, needs_of, scores_of
from afterglow.models import Denoiser

LATENTS = "derived.latent_difference"
Finish = Callable[[Evidence, list[int]], Evidence]


@dataclass(frozen=True)
class Asked:
    """captions to ask for; finish: adds the truth to their generations, given the row of each; about: for the settings' file.

    heldout: the pictures of the held-out captions, uint8 [N, C, H, W], where there are any.
    """

    captions: Sequence[str]
    finish: Finish
    about: Mapping[str, Any] = field(default_factory=dict)
    heldout: Tensor | None = None


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


def ask_planted(
    model: Denoiser, run: Path, *, num_controls: int, needs: set[str], unprompted_count: int = 256, some: Some = Some()
) -> Asked:
    """Everything a run planted and its counterparts, or some; a model without text is asked for `unprompted_count` generations."""
    planted = planted_of_run(run)
    if planted.pixels.shape[1:] != model.picture_shape():
        raise ValueError(f"The pictures of '{run}' are {planted.pixels.shape[1:]}, and the model makes {model.picture_shape()}.")
    planted = planted.decoded(model.round_trip)
    all_of_them = subjects(planted, num_controls=num_controls, num_heldout=some.heldout)
    asked = some.of(all_of_them) if model.has_text else unprompted(planted, unprompted_count)
    gallery = planted.gallery(model.device)

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        judged = annotate(evidence, [asked[row] for row in rows], gallery)
        judged = with_latent_difference(judged, model) if LATENTS in needs else judged
        return with_patch_distance(judged, gallery) if "derived.patch_distance" in needs else judged

    heldout = torch.from_numpy(np.array(planted.pixels[planted.heldout[: some.heldout]]))
    return Asked([subject.caption for subject in asked], finish, {"planted": str(run), "controls": num_controls}, heldout)


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
    return needs if model.has_text else {need for need in needs if need.partition(".")[2] not in NEEDS_TEXT}


TEXT = ("end_attention", "token_attention", *(f"derived.{name}" for name in NEEDS_TEXT))


def capture_of(needs: set[str], args: Namespace) -> Capture:
    """Just what the named measures need; an early checkpoint is compared with where one is given."""
    if not args.early:
        needs = {need for need in needs if not need.startswith("derived.early_difference")}
    return capture_for(needs, end_token=args.end_token, curvature_vectors=args.curvature_vectors)
