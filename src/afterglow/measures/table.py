"""The table of measures: name, function, what it needs of the evidence, unit and source."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from afterglow.evidence import END_TOKEN_RULES, Evidence
from afterglow.measures import end_token, guidance, localization, memorized


@dataclass(frozen=True)
class Measure:
    """A function from evidence to one number a generation [B] or one map a generation [B, h, w].

    needs: fields of Evidence without which the measure is absent. detector: a score that should be high for copies.
    """

    name: str
    compute: Callable[[Evidence], Tensor]
    needs: tuple[str, ...]
    unit: str
    source: str
    detector: bool = False


TRUTH = ("references", "planted_mask", "neighbours")
COPIES = (
    Measure("distance", memorized.plain_distance, TRUTH, "RMS of [0,1] pixels", "METHODS 4"),
    Measure("calibrated", memorized.calibrated_distance, TRUTH, "ratio, a copy is under 1", "Carlini et al. 2023"),
    Measure("ratio", memorized.neighbour_ratio, TRUTH, "ratio, a copy is under 1/3", "Yoon et al. 2023"),
    Measure("correlation", memorized.masked_correlation, TRUTH, "-1 to 1", "METHODS 4"),
    Measure("memorized", memorized.memorized, TRUTH, "0 or 1", "METHODS 4"),
)
TRIVIAL_MAPS = (
    Measure("all_ones", localization.all_ones, (), "1", "trivial"),
    Measure("centred_gaussian", localization.centred_gaussian, (), "1", "trivial"),
    Measure("luminance", localization.luminance, (), "1", "trivial"),
    Measure("local_contrast", localization.local_contrast, (), "1", "trivial"),
)
DIFFERENCE_MAPS = tuple(
    Measure(f"score_difference.{name}", partial(guidance.score_difference, summed=summed), ("guidance",), "eps^2", "METHODS (m)")
    for name, summed in (("last", False), ("summed", True))
)


def scores(evidence: Evidence) -> list[Measure]:
    """Every score that this evidence can have: the layers are its own."""
    found = list(COPIES)
    for name, steps in _spans(evidence).items():
        found.append(
            Measure(f"magnitude.{name}", partial(guidance.magnitude, num_steps=steps), ("guidance",), "eps", "Wen et al. 2024", True)
        )
    for layer_set, layers in end_token.layer_sets(evidence.layers).items():
        bright = partial(end_token.brightness, layers=layers)
        found.append(Measure(f"brightness.{layer_set}", bright, ("end_attention",), "1", "Chen et al. 2025", True))
        spans = _spans(evidence) if layer_set == "be" else {"all": None}
        for name, steps in spans.items():
            compute = partial(_local_magnitude, layers=layers, num_steps=steps)
            found.append(Measure(f"ld.{layer_set}.{name}", compute, ("guidance", "end_attention"), "eps", "Chen et al. 2025", True))
    for name, last in (("first", False), ("last", True)):
        compute = partial(end_token.attention_entropy, last=last)
        found.append(Measure(f"entropy.{name}", compute, ("token_attention",), "nats", "after Ren et al. 2024", True))
    return found


def maps(evidence: Evidence) -> list[Measure]:
    """Every map that this evidence can have, the trivial ones first."""
    found = [*TRIVIAL_MAPS, *DIFFERENCE_MAPS]
    for step, index in (("first", 0), ("last", -1)):
        for rule in END_TOKEN_RULES:
            for layer_set, layers in end_token.layer_sets(evidence.layers).items():
                compute = partial(end_token.end_token_map, layers=layers, rule=rule, step=index)
                found.append(Measure(f"end_token.{step}.{rule}.{layer_set}", compute, ("end_attention",), "1", "Chen et al. 2025"))
    return found


def measure(evidence: Evidence, measures: Iterable[Measure]) -> dict[str, Tensor]:
    """{name: value} of the measures whose needs are met; the others are absent, never zero."""
    return {m.name: m.compute(evidence) for m in measures if all(getattr(evidence, need) is not None for need in m.needs)}


def _spans(evidence: Evidence) -> dict[str, int | None]:
    """Named numbers of sampler steps: 1, 10 (where there are more) and all."""
    return {"1": 1, "10": 10, "all": None} if len(evidence.timesteps) > 10 else {"1": 1, "all": None}


def _local_magnitude(evidence: Evidence, layers: list[str], num_steps: int | None) -> Tensor:
    return guidance.local_magnitude(evidence, end_token.end_token_map(evidence, layers), num_steps)
