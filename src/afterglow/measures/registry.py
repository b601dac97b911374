"""The table of measures: name, function, what it needs of the generations, unit and source. A new measure is one more row."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import Tensor

from afterglow.generations import END_TOKEN_RULES, Generations
from afterglow.measures import basin, cross_seed, derived_maps, end_token, guidance, localization, memorized, similarity, token_entropy


@dataclass(frozen=True)
class Measure:
    """A function from generations to one number a generation [B] (a score) or one map a generation [B, h, w].

    needs: fields of Generations, 'extras.<name>' or 'end_attention.<step>', without which the measure is absent. detector: a score
    that should be high for copies and looks at no training image. layers: whose end-token attention it reads.
    """

    name: str
    compute: Callable[[Generations], Tensor]
    requires: tuple[str, ...]
    unit: str
    source: str
    detector: bool = False
    layers: tuple[str, ...] = ()


WEN, CHEN, REN, JAIN = "Wen et al. 2024", "Chen et al. 2025", "Ren et al. 2024", "Jain et al. 2025"
CARLINI, SOMEPALLI, CURVATURE, KAMB = "Carlini et al. 2023", "Somepalli et al. 2023", "mem-curv-diff 2026", "after Kamb and Ganguli 2024"
OURS, PIXELS = "Afterglow", "-RMS of [0,1] pixels"
LATENT = ("extras.sscd", "extras.latent_difference")
TRUTH = ("references", "eval_mask", "neighbors")
COPIES = (
    Measure("distance", memorized.plain_distance, TRUTH, "RMS of [0,1] pixels", OURS),
    Measure("calibrated_l2", memorized.calibrated_l2, TRUTH, "ratio, a copy is under 1", CARLINI),
    Measure("nn_ratio", memorized.nn_ratio, TRUTH, "ratio, a copy is under 1/3", "Yoon et al. 2023"),
    Measure("reconstruction_error", memorized.reconstruction_error, (*TRUTH, "extras.reconstruction_error"), "RMS of [0,1] pixels", OURS),
    Measure("correlation", memorized.masked_correlation, TRUTH, "-1 to 1", OURS),
    Measure("memorized", memorized.memorized, TRUTH, "0 or 1", OURS),
)
SIMILARITIES = (
    Measure("sscd", similarity.copy_similarity, ("extras.sscd",), "cosine", "Pizzi et al. 2022"),
    Measure("s_pixel", similarity.similarity, ("extras.sscd", "references"), "-L2 of [0,1] pixels", CHEN),
    Measure("s_latent", partial(similarity.similarity, latent=True), LATENT, "-L2 of latents", f"after {CHEN}"),
)
BETWEEN = (
    Measure("tiled_l2", cross_seed.tiled_similarity, ("images",), PIXELS, CARLINI, True),
    Measure(
        "tiled_l2.local",
        partial(cross_seed.tiled_similarity, local=True),
        ("images",),
        "-RMS of [0,1] pixels",
        f"after {CARLINI}",
        True,
    ),
    Measure("edge_consistency", cross_seed.edge_consistency, ("images",), "share of pixels", "Webster 2023", True),
)
OTHER_SCORES = (
    Measure("sharpness", guidance.sharpness, ("extras.sharpness",), "1 / x^2", "Jeon et al. 2025", True),
    Measure("basin.step", basin.basin_step, ("extras.basin_curve",), "sampler step; absent without a minimum", JAIN),
    Measure("basin.depth", basin.basin_depth, ("extras.basin_curve",), "share of the first value", JAIN),
)
TRIVIAL_MAPS = (
    Measure("all_ones", localization.all_ones, (), "1", "trivial"),
    Measure("centered_gaussian", localization.centered_gaussian, (), "1", "trivial"),
    Measure("luminance", localization.luminance, (), "1", "trivial"),
    Measure("local_contrast", localization.local_contrast, (), "1", "trivial"),
)


def _last_and_summed(name: str, function: Callable[..., Tensor], need: str) -> tuple[Measure, ...]:
    """A squared difference of predictions at the last step, and summed over steps."""
    return tuple(
        Measure(f"{name}.{which}", partial(function, summed=which == "summed"), (need.format(which),), "eps^2", CURVATURE)
        for which in ("last", "summed")
    )


DIFFERENCE_MAPS = _last_and_summed("score_difference", guidance.score_difference, "guidance")
OTHER_MAPS = (
    Measure("curvature_difference", derived_maps.curvature_difference, ("extras.curvature",), "eps / x", CURVATURE),
    Measure(
        "curvature_difference.signed",
        partial(derived_maps.curvature_difference, relu=False),
        ("extras.curvature",),
        "eps / x",
        CURVATURE,
    ),
    Measure(
        "curvature_difference.of_score",
        partial(derived_maps.curvature_difference, of_score=True),
        ("extras.curvature",),
        "eps / x",
        f"after {CURVATURE}",
    ),
    *_last_and_summed("early_difference", derived_maps.early_difference, "extras.early_difference.{}"),
    Measure("cross_seed_std", cross_seed.agreement, ("images",), PIXELS, OURS),
    Measure("patch_nearness", derived_maps.patch_nearness, ("extras.patch_distance",), PIXELS, "after Kamb and Ganguli 2024"),
    Measure("self_attention", derived_maps.self_attention_concentration, ("extras.self_attention",), "1", OURS),
    Measure("split_product", derived_maps.split_product, ("extras.split_product",), "cosine", SOMEPALLI),
    Measure(
        "split_product.cross",
        partial(derived_maps.split_product, cross=True),
        ("extras.split_product.cross",),
        "cosine",
        SOMEPALLI,
    ),
)


def scores_of(layers: Sequence[str], end_layers: Sequence[str], num_steps: int) -> list[Measure]:
    """Every score of a model with these cross-attention layers, end tokens kept of some, and a sampler of this many steps."""
    found = [*COPIES, *SIMILARITIES, *BETWEEN, *OTHER_SCORES]
    spans = _spans(num_steps)
    for name, steps in spans.items():
        found.append(Measure(f"guidance_norm.{name}", partial(guidance.magnitude, num_steps=steps), ("guidance",), "eps", WEN, True))
    for name, some in end_token.layer_sets(list(end_layers)).items():
        found += _of_layers(name, some, spans if name == "be" else {"all": None})
    return found + _entropies(layers)


def _of_layers(name: str, layers: list[str], spans: dict[str, int | None]) -> list[Measure]:
    """The scores of one set of layers' end-token attention."""

    def row(label: str, function: Callable[..., Tensor], unit: str, source: str = CHEN, **more: Any) -> Measure:
        options, requires = more.get("options", {}), (*more.get("needs", ()), "end_attention.last")
        compute = partial(function, layers=layers, **options)
        return Measure(label, compute, requires, unit, source, more.get("detector", True), tuple(layers))

    found = [
        row(f"end_token_mean.{name}", end_token.brightness, "1"),
        row(f"end_token_max.{name}", end_token.brightest, "1"),
        row(f"effective_area.{name}", end_token.effective_area, "share of the image", OURS, detector=False),
    ]
    for span, steps in spans.items():
        more: dict[str, Any] = {"needs": ("guidance",), "options": {"num_steps": steps}}
        found.append(row(f"ld.{name}.{span}", _local_magnitude, "eps", **more))
        neutral: dict[str, Any] = {"needs": ("guidance",), "options": {"num_steps": steps, "area_neutral": True}}
        found.append(row(f"ld_neutral.{name}.{span}", _local_magnitude, "eps", f"after {CHEN}", **neutral))
    for place, requires, unit in (("pixel", ("extras.sscd", "references"), "-L2 of [0,1] pixels"), ("latent", LATENT, "-L2 of latents")):
        for label, normalized in ((f"ls_{place}", False), (f"ls_{place}.normalized", True)):
            more = {"needs": requires, "options": {"normalized": normalized, "latent": place == "latent"}, "detector": False}
            found.append(row(f"{label}.{name}", _local_similarity, unit, **more))
    return found


def _entropies(layers: Sequence[str]) -> list[Measure]:
    """Token-attention entropies; E is read in the authors' layer where there is one, and in each layer under its name."""
    requires = ("token_attention",)
    found = [
        Measure("entropy.first", partial(token_entropy.attention_entropy, last=False), requires, "nats", f"after {REN}", True),
        Measure("entropy.last", partial(token_entropy.attention_entropy, last=True), requires, "nats", f"after {REN}", True),
        Measure("memattn_d", token_entropy.last_steps_entropy, (*requires, "prompt_length"), "nats", REN, True),
        Measure(
            "memattn_d.absolute", partial(token_entropy.last_steps_entropy, absolute=True), (*requires, "prompt_length"), "nats", REN, True
        ),
    ]
    for place, layer in enumerate(layers):
        compute = partial(token_entropy.first_step_entropy, layer=place)
        if end_token.short(layer) == token_entropy.EARLY_LAYER:
            found.append(Measure("memattn_e", compute, requires, "nats", REN, True))
        found.append(Measure(f"memattn_e.{end_token.short(layer)}", compute, requires, "nats", f"after {REN}", True))
    return found


def maps_of(end_layers: Sequence[str], num_steps: int, end_steps: Sequence[int] = (0, -1)) -> list[Measure]:
    """Every map of a model with these layers; the trivial ones first. end_steps: indices at which end tokens are kept."""
    found = [*TRIVIAL_MAPS, *DIFFERENCE_MAPS, *OTHER_MAPS]
    for index in sorted({index % num_steps for index in end_steps}):
        step = step_name(index, num_steps)
        for rule in END_TOKEN_RULES:
            for name, chosen in end_token.layer_sets(list(end_layers)).items():
                compute = partial(end_token.end_token_map, layers=chosen, rule=rule, step=index)
                found.append(
                    Measure(f"end_token.{step}.{rule}.{name}", compute, (f"end_attention.{step}",), "1", CHEN, False, tuple(chosen))
                )
    return found


def step_name(index: int, num_steps: int) -> str:
    """'last', 'first' or 'step7': a sampler step as names of maps say it."""
    if index % num_steps == num_steps - 1:
        return "last"
    return "first" if index == 0 else f"step{index % num_steps}"


def scores(generations: Generations) -> list[Measure]:
    """Every score that this generations can have: the layers are its own."""
    return scores_of(generations.provenance.get("layers", generations.layers), generations.layers, len(generations.timesteps))


def maps(generations: Generations) -> list[Measure]:
    """Every map that this generations can have."""
    kept = [step for step, _ in generations.end_attention or {}]
    return maps_of(generations.layers, len(generations.timesteps), kept)


def requirements(measures: Iterable[Measure]) -> set[str]:
    """The union of what these measures need."""
    return {need for m in measures for need in m.requires}


def chosen(measures: Iterable[Measure], patterns: Sequence[str]) -> list[Measure]:
    """Those whose name matches one of the patterns (shell wildcards, 'ld.be.*')."""
    return [m for m in measures if any(fnmatchcase(m.name, pattern) for pattern in patterns)]


def named(measures: Iterable[Measure], patterns: Sequence[str]) -> list[Measure]:
    """The same; ValueError names a pattern that matches nothing."""
    known = list(measures)
    for pattern in patterns:
        if not chosen(known, [pattern]):
            raise ValueError(f"No measure is named '{pattern}'; `python analysis/measure.py --list` names them all.")
    return chosen(known, patterns)


def has(generations: Generations, need: str) -> bool:
    """Whether the generations holds a field, 'extras.<name>', or 'end_attention.<step>'."""
    field, _, name = need.partition(".")
    if field == "extras":
        return name in generations.extras
    if field == "end_attention":
        return name in {step_name(step, len(generations.timesteps)) for step, _ in generations.end_attention or {}}
    return getattr(generations, field) is not None


def measure(generations: Generations, measures: Iterable[Measure]) -> dict[str, Tensor]:
    """{name: value} of the measures whose needs are met; the others are absent, never zero. NaN: absent for that generation."""
    return {m.name: m.compute(generations) for m in measures if all(has(generations, need) for need in m.requires)}


def _spans(num_steps: int) -> dict[str, int | None]:
    """Named numbers of sampler steps: 1, 5, 10 (where there are more) and all."""
    return {str(count): count for count in (1, 5, 10) if count == 1 or num_steps > count} | {"all": None}


def _local_magnitude(generations: Generations, layers: list[str], num_steps: int | None, area_neutral: bool = False) -> Tensor:
    return guidance.local_magnitude(generations, end_token.bright_ending(generations, layers), num_steps, area_neutral=area_neutral)


def _local_similarity(generations: Generations, layers: list[str], normalized: bool, latent: bool) -> Tensor:
    return similarity.similarity(generations, end_token.bright_ending(generations, layers), normalized=normalized, latent=latent)


# What a probe of a training measures of itself: the copies, magnitude, LD, end tokens and their histogram, entropy, score differences.
FIRST_MEASURES = (
    *(m.name for m in (*COPIES, *TRIVIAL_MAPS, *DIFFERENCE_MAPS)),
    *(
        "guidance_norm.1",
        "guidance_norm.10",
        "guidance_norm.all",
        "ld.*.1",
        "ld.*.10",
        "ld.*.all",
        "end_token_mean.*",
        "entropy.*",
        "end_token.*",
    ),
)


_ANY_LAYERS = ("down_blocks.0.attentions.0", "down_blocks.1.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0")
ANY_MEASURES = scores_of(_ANY_LAYERS, _ANY_LAYERS, 50) + maps_of(_ANY_LAYERS, 50)  # of a model that has everything, for names

_FAMILIES = {m.name.partition(".")[0] for m in ANY_MEASURES if m.detector}


def is_detector(name: str) -> bool:
    """Whether a name, also of another model's layer, is a detector's: all variants of a measure ('ld.be.all') share its first word."""
    return name.partition(".")[0] in _FAMILIES
