"""The registry of measures: name, function, required inputs, unit and source. A new measure is one more entry."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from afterglow.attention_names import ATTENTION_COLUMNS, END_TOKEN_RULES, TOKEN_GROUPS, layer_sets, short_name
from afterglow.deferred import Deferred
from afterglow.errors import AfterglowError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from afterglow.generations import Generations
    from afterglow.measures import anisotropy, bright_ending, cross_seed, guidance, maps, memorized, token_entropy, update_norm
else:  # names are listed and refused without PyTorch
    _MODULES = ("anisotropy", "bright_ending", "cross_seed", "guidance", "maps", "memorized", "token_entropy", "update_norm")
    anisotropy, bright_ending, cross_seed, guidance, maps, memorized, token_entropy, update_norm = (
        Deferred(f"afterglow.measures.{name}") for name in _MODULES
    )

EARLY_LAYER = "down_blocks.1.attentions.1"  # of Stable Diffusion: the layer that memattn_e reads


@dataclass(frozen=True)
class Measure:
    """A function from generations to one number per sample (a score, [B]) or one map per sample ([B, h, w]).

    Args:
        name: unique; variants of a measure share the part before the first dot.
        compute: the function.
        requires: fields of Generations, 'extras.<name>' or 'end_attention.<step>', without which the measure is absent.
        unit: of the values.
        source: paper, or Afterglow.
        detector: True for a score that should be high for copies and reads no training image.
        layers: whose end-token attention the measure reads.
    """

    name: str
    compute: "Callable[[Generations], Tensor]"
    requires: tuple[str, ...]
    unit: str
    source: str
    detector: bool = False
    layers: tuple[str, ...] = ()


_WEN, _CHEN, _REN, _JAIN = "Wen et al. 2024", "Chen et al. 2025", "Ren et al. 2024", "Jain et al. 2025"
_CARLINI, _SOMEPALLI, _CURVATURE, _KIM = "Carlini et al. 2023", "Somepalli et al. 2023", "mem-curv-diff 2026", "Kim and No 2026"
_ASTHANA, _HUANG = "Asthana and Belagiannis 2026", "Huang et al. 2026"
_OURS, _RMS, _SHARE = "Afterglow", "RMS of [0,1] pixels", "share of the attention"
_TRUTH = ("references", "eval_mask", "neighbors")
_UPDATES = ("extras.update_norms", "extras.update_region")
_PIXEL, _LATENT = ("extras.sscd", "references"), ("extras.sscd", "extras.latent_difference")
_LS_UNITS = {"pixel": (_PIXEL, "-L2 of [0,1] pixels"), "latent": (_LATENT, "-L2 of latents")}
COPY_MEASURES = (
    Measure("distance", memorized.reference_distance, _TRUTH, _RMS, _OURS),
    Measure("calibrated_l2", memorized.calibrated_l2, _TRUTH, "ratio, a copy is under 1", _CARLINI),
    Measure("nn_ratio", memorized.nn_ratio, _TRUTH, "ratio, a copy is under 1/3", "Yoon et al. 2023"),
    Measure("reconstruction_error", memorized.reconstruction_error, (*_TRUTH, "extras.reconstruction_error"), _RMS, _OURS),
    Measure("correlation", memorized.correlation, _TRUTH, "-1 to 1", _OURS),
    Measure("memorized", memorized.memorized, _TRUTH, "0 or 1", _OURS),
)
SIMILARITIES = (
    Measure("sscd", bright_ending.sscd_similarity, ("extras.sscd",), "cosine", "Pizzi et al. 2022"),
    Measure("s_pixel", bright_ending.similarity, _PIXEL, _LS_UNITS["pixel"][1], _CHEN),
    Measure("s_latent", partial(bright_ending.similarity, latent=True), _LATENT, _LS_UNITS["latent"][1], f"after {_CHEN}"),
)
CROSS_SEED = (
    Measure("tiled_l2", cross_seed.tiled_similarity, ("images",), f"-{_RMS}", _CARLINI, True),
    Measure("tiled_l2.local", partial(cross_seed.tiled_similarity, local=True), ("images",), f"-{_RMS}", f"after {_CARLINI}", True),
    Measure("edge_consistency", cross_seed.caption_edge_consistency, ("images",), "share of pixels", "Webster 2023", True),
)
OTHER_SCORES = (
    Measure("sharpness", guidance.sharpness, ("extras.sharpness",), "1 / x^2", "Jeon et al. 2025", True),
    Measure("anisotropy", anisotropy.anisotropy, ("guidance", "extras.low_noise_cosine"), "eps", _ASTHANA, True),
    Measure("anisotropy.cosine", anisotropy.low_noise_cosine, ("extras.low_noise_cosine",), "cosine", _ASTHANA, True),
    Measure("update_deviation", update_norm.update_deviation, _UPDATES, "standard deviations of held-out captions", _HUANG, True),
    Measure("basin.step", guidance.basin_step, ("extras.basin_curve",), "sampler step; absent without a minimum", _JAIN),
    Measure("basin.depth", guidance.basin_depth, ("extras.basin_curve",), "share of the first value", _JAIN),
)
TRIVIAL_MAPS = tuple(
    Measure(name, getattr(maps, name), (), "1", "trivial") for name in ("all_ones", "centered_gaussian", "luminance", "local_contrast")
)


def _last_and_summed(name: str, function: "Callable[..., Tensor]", required: str) -> tuple[Measure, ...]:
    """A squared difference of predictions at the last step, and summed over steps."""
    return tuple(
        Measure(f"{name}.{which}", partial(function, summed=which == "summed"), (required.format(which),), "eps^2", _CURVATURE)
        for which in ("last", "summed")
    )


def _curvature(suffix: str, source: str, *, relu: bool = True, of_score: bool = False) -> Measure:
    compute = partial(maps.curvature_difference, relu=relu, of_score=of_score)
    return Measure(f"curvature_difference{suffix}", compute, ("extras.curvature",), "eps / x", source)


DIFFERENCE_MAPS = _last_and_summed("score_difference", guidance.score_difference, "guidance")
OTHER_MAPS = (
    _curvature("", _CURVATURE),
    _curvature(".signed", _CURVATURE, relu=False),
    _curvature(".of_score", f"after {_CURVATURE}", of_score=True),
    *_last_and_summed("early_difference", maps.early_difference, "extras.early_difference.{}"),
    Measure("cross_seed_std", cross_seed.cross_seed_std, ("images",), f"-{_RMS}", _OURS),
    Measure("patch_nearness", maps.patch_nearness, ("extras.patch_distance",), f"-{_RMS}", "after Kamb and Ganguli 2024"),
    Measure("self_attention", maps.self_attention_concentration, ("extras.self_attention",), "1", _OURS),
    Measure("split_product", maps.split_product, ("extras.split_product",), "cosine", _SOMEPALLI),
    Measure("split_product.cross", partial(maps.split_product, cross=True), ("extras.split_product.cross",), "cosine", _SOMEPALLI),
)


def list_scores(layers: Sequence[str], end_layers: Sequence[str], num_steps: int) -> list[Measure]:
    """Every score of a model.

    Args:
        layers: cross-attention layers whose token attention is recorded.
        end_layers: layers whose end-token attention is recorded.
        num_steps: number of sampler steps.
    """
    spans: dict[str, int | None] = {str(count): count for count in (1, 5, 10) if count == 1 or num_steps > count} | {"all": None}
    norms = [
        Measure(f"guidance_norm.{name}", partial(guidance.guidance_norm, num_steps=steps), ("guidance",), "eps", _WEN, True)
        for name, steps in spans.items()
    ]
    found = [*COPY_MEASURES, *SIMILARITIES, *CROSS_SEED, *OTHER_SCORES, *norms]
    for name, members in layer_sets(list(end_layers)).items():
        found += _end_token_scores(name, members, spans if name == "be" else {"all": None})
    return found + _entropies(layers)


def _end_token_scores(name: str, layers: list[str], spans: dict[str, int | None]) -> list[Measure]:
    """The scores of one set of layers' end-token attention."""

    def score(label: str, compute: "Callable[..., Tensor]", unit: str, source: str, requires: tuple[str, ...], detector: bool) -> Measure:
        return Measure(label, partial(compute, layers=layers), (*requires, "end_attention.last"), unit, source, detector, tuple(layers))

    found = [
        score(f"end_token_mean.{name}", bright_ending.end_token_mean, "1", _CHEN, (), True),
        score(f"end_token_max.{name}", bright_ending.end_token_max, "1", _CHEN, (), True),
        score(f"effective_area.{name}", bright_ending.effective_area, "share of the image", _OURS, (), False),
        score(f"sink_darkness_mean.{name}", bright_ending.sink_darkness_mean, _SHARE, _OURS, (), True),
    ]
    for group in TOKEN_GROUPS:
        mass = partial(bright_ending.attention_mass, group=group)
        found.append(score(f"attention_mass.{group}.{name}", mass, _SHARE, f"after {_KIM}", (), False))
    for (span, steps), (label, neutral, source) in product(spans.items(), (("ld", False, _CHEN), ("ld_neutral", True, f"after {_CHEN}"))):
        compute = partial(bright_ending.local_detection, num_steps=steps, area_neutral=neutral)
        found.append(score(f"{label}.{name}.{span}", compute, "eps", source, ("guidance",), True))
    control = partial(bright_ending.local_detection, other_caption=True)
    found.append(score(f"ld_other_caption.{name}.all", control, "eps", _OURS, ("guidance",), True))
    for (place, (requires, unit)), normalized in product(_LS_UNITS.items(), (False, True)):
        compute = partial(bright_ending.similarity, normalized=normalized, latent=place == "latent")
        found.append(score(f"ls_{place}{'.normalized' * normalized}.{name}", compute, unit, _CHEN, requires, False))
    return found


def _entropies(layers: Sequence[str]) -> list[Measure]:
    """Token-attention entropies; E is read in the authors' layer where the model has it, and in each layer under its name."""

    def entropy(name: str, compute: "Callable[..., Tensor]", source: str, *requires: str) -> Measure:
        return Measure(name, compute, ("token_attention", *requires), "nats", source, True)

    found = [
        entropy("entropy.first", partial(token_entropy.attention_entropy, last=False), f"after {_REN}"),
        entropy("entropy.last", partial(token_entropy.attention_entropy, last=True), f"after {_REN}"),
        entropy("memattn_d", token_entropy.memattn_d, _REN, "prompt_length"),
        entropy("memattn_d.absolute", partial(token_entropy.memattn_d, absolute=True), _REN, "prompt_length"),
    ]
    names = [short_name(layer) for layer in layers]
    for name in dict.fromkeys(names):
        compute = partial(token_entropy.memattn_e, layers=[index for index, other in enumerate(names) if other == name])
        if name == EARLY_LAYER:
            found.append(entropy("memattn_e", compute, _REN))
        found.append(entropy(f"memattn_e.{name}", compute, f"after {_REN}"))
    return found


def list_maps(end_layers: Sequence[str], num_steps: int, end_steps: Sequence[int] = (0, -1)) -> list[Measure]:
    """Every map of a model, the trivial ones first.

    Args:
        end_layers: layers whose end-token attention is recorded.
        num_steps: number of sampler steps.
        end_steps: indices of the steps at which end-token attention is recorded.
    """
    found = [*TRIVIAL_MAPS, *DIFFERENCE_MAPS, *OTHER_MAPS]
    steps, sets = sorted({index % num_steps for index in end_steps}), layer_sets(list(end_layers))
    for index, column, (name, layers) in product(steps, (*ATTENTION_COLUMNS, "sink"), sets.items()):
        step = step_name(index, num_steps)
        if column == "sink":
            label, source, compute = f"sink_darkness.{step}", _OURS, partial(bright_ending.sink_darkness, layers=layers, step=index)
        else:
            of_end, compute = column in END_TOKEN_RULES, partial(bright_ending.end_token_map, layers=layers, rule=column, step=index)
            label, source = f"{'end_token' if of_end else 'token_group'}.{step}.{column}", _CHEN if of_end else f"after {_KIM}"
        found.append(Measure(f"{label}.{name}", compute, (f"end_attention.{step}",), "1", source, False, tuple(layers)))
    return found


def step_name(index: int, num_steps: int) -> str:
    """Name of a sampler step in map names: 'last', 'first' or 'step7'."""
    if index % num_steps == num_steps - 1:
        return "last"
    return "first" if index == 0 else f"step{index % num_steps}"


def available_scores(generations: "Generations") -> list[Measure]:
    """Every score for the layers and steps of these generations."""
    return list_scores(generations.provenance.get("layers", generations.layers), generations.layers, len(generations.timesteps))


def available_maps(generations: "Generations") -> list[Measure]:
    """Every map for the layers and steps of these generations."""
    return list_maps(generations.layers, len(generations.timesteps), [step for step, _ in generations.end_attention or {}])


def requirements(measures: Iterable[Measure]) -> set[str]:
    """Union of the inputs that these measures require."""
    return {name for m in measures for name in m.requires}


def filter_measures(measures: Iterable[Measure], patterns: Sequence[str]) -> list[Measure]:
    """Measures whose name matches one of the patterns (shell wildcards: 'ld.be.*')."""
    matches = re.compile("|".join(map(translate, patterns)) or "(?!)").match  # one expression: there are hundreds of names
    return [m for m in measures if matches(m.name)]


def resolve_names(measures: Iterable[Measure], patterns: Sequence[str]) -> list[Measure]:
    """The same as `filter_measures`.

    Raises:
        AfterglowError: a pattern matches nothing; the message suggests the nearest name.
    """
    known = list(measures)
    for pattern in patterns:
        if not filter_measures(known, [pattern]):
            hint = did_you_mean(pattern, [m.name for m in known]) or "; `afterglow measure --list` prints all names."
            raise AfterglowError(f"No measure is named '{pattern}'{hint}")
    return filter_measures(known, patterns)


def check_measures(patterns: Sequence[str]) -> None:
    """Raise AfterglowError if a pattern matches no measure of any model; names of layers are each model's own and are not checked."""
    resolve_names(ANY_MEASURES, [pattern for pattern in patterns if "block" not in pattern])


def check_families(patterns: Iterable[str], option: str) -> None:
    """Raise AfterglowError if the first word of a pattern ('end_token' of 'end_token.last.*') begins no measure."""
    families = sorted({m.name.partition(".")[0] for m in ANY_MEASURES})
    for pattern in patterns:
        if not any(fnmatchcase(family, pattern.partition(".")[0]) for family in families):
            hint = did_you_mean(pattern.partition(".")[0], families) or "; `afterglow measure --list` prints all."
            raise AfterglowError(f"{option}: no measure is named '{pattern}'{hint}")


def compute_measures(generations: "Generations", measures: Iterable[Measure]) -> "dict[str, Tensor]":
    """Compute the measures whose inputs are present; the others are absent, never zero.

    Args:
        generations: B samples.
        measures: for example `filter_measures(available_scores(generations), ["guidance_norm.*"])`.

    Returns:
        {name: values [B] or [B, h, w]}; NaN where a measure is undefined for a sample.
    """
    return {m.name: m.compute(generations) for m in measures if all(_has_input(generations, name) for name in m.requires)}


def _has_input(generations: "Generations", name: str) -> bool:
    field, _, rest = name.partition(".")
    if field == "extras":
        return rest in generations.extras
    if field == "end_attention":
        return rest in {step_name(step, len(generations.timesteps)) for step, _ in generations.end_attention or {}}
    return getattr(generations, field) is not None


# What an evaluation during training measures by default.
FIRST_MEASURES = (
    *(m.name for m in (*COPY_MEASURES, *TRIVIAL_MAPS, *DIFFERENCE_MAPS)),
    *("guidance_norm.1", "guidance_norm.10", "guidance_norm.all", "update_deviation", "ld.*.1", "ld.*.10", "ld.*.all"),
    *("end_token_mean.*", "entropy.*", "end_token.*", "attention_mass.*.all", "token_group.last.*.all", "sink_darkness.last.all"),
)

_ANY_LAYERS = ("down_blocks.0.attentions.0", "down_blocks.1.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0")
ANY_MEASURES = list_scores(_ANY_LAYERS, _ANY_LAYERS, 50) + list_maps(_ANY_LAYERS, 50)  # of a model that has everything, for names

_FAMILIES = {m.name.partition(".")[0] for m in ANY_MEASURES if m.detector}


def is_detector(name: str) -> bool:
    """True if a name, also with another model's layer, is a detector's: all variants of a measure share its first word."""
    return name.partition(".")[0] in _FAMILIES
