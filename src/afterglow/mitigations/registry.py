"""Every mitigation by its name: what its strength is, where it does nothing, its default and its grid. A new mitigation is one more row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from afterglow.analysis.thresholds import UPPER, Thresholds
from afterglow.mitigations.inference.attention_scaling import AttentionScaling
from afterglow.mitigations.inference.caption_insertion import CaptionInsertion
from afterglow.mitigations.inference.guidance_schedule import DynamicTransition, OppositeDynamic, StaticTransition
from afterglow.mitigations.inference.noise_selection import NoiseSelection
from afterglow.mitigations.inference.prompt_optimization import PromptOptimization
from afterglow.mitigations.inference.reanchoring import Reanchoring
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import Mitigation

Make = Callable[[float, Thresholds, "MitigationInputs"], Mitigation]
WEN, CHEN, REN, JAIN, SOMEPALLI = "Wen et al. 2024", "Chen et al. 2025", "Ren et al. 2024", "Jain et al. 2025", "Somepalli et al. 2023"
NEVER = float("inf")


@dataclass(frozen=True)
class MitigationInputs:
    """What some mitigations take beside a strength. trigger: of the optimizations, in units of their threshold; paraphrases of captions."""

    trigger: float = 0.0
    paraphrases: Mapping[str, Sequence[str]] | None = None


@dataclass(frozen=True)
class MitigationSpec:
    """A mitigation at any strength.

    neutral: the strength at which it changes nothing though all of it runs; grid: strengths of a trade-off curve, the published ones
    where there are; low, high: what a strength may be; whole: only integers; gradients: whether it takes any.
    """

    name: str
    make: Make
    strength: str
    default: float
    neutral: float
    grid: tuple[float, ...]
    low: float
    high: float
    source: str
    whole: bool = False
    gradients: bool = False

    def __call__(self, strength: float, thresholds: Thresholds, extras: MitigationInputs = MitigationInputs()) -> Mitigation:  # noqa: B008
        """Raises ValueError that names the mitigation where the strength is out of its range, or a threshold that it needs is absent."""
        if not self.low <= strength <= self.high or (self.whole and strength != int(strength)):
            kind = "a whole number" if self.whole else "a number"
            raise ValueError(
                f"The strength of {self.name} ({self.strength}) is {kind} from {self.low:g} to {self.high:g}, not {strength:g}."
            )
        return self.make(strength, thresholds, extras)


def _magnitude(strength: float, thresholds: Thresholds, extras: MitigationInputs) -> Mitigation:
    first = thresholds.magnitude[0]
    return PromptOptimization(strength * first, extras.trigger * first)


def _local(strength: float, thresholds: Thresholds, extras: MitigationInputs) -> Mitigation:
    if thresholds.local is None:
        raise ValueError("wen.ld reads the end token of the layers down_blocks.0, and the model has none there.")
    return PromptOptimization(strength * thresholds.local, extras.trigger * thresholds.local, local=True)


def _reanchoring(strength: float, thresholds: Thresholds, extras: MitigationInputs) -> Mitigation:
    low = thresholds.magnitude
    return Reanchoring(thresholds.search, low, [UPPER * value for value in low], int(strength), extras.paraphrases or {})


def _insertion(kind: str) -> MitigationSpec:
    return MitigationSpec(
        f"random.{kind}", lambda s, *_: CaptionInsertion(kind, int(s)), f"{kind} inserted", 4, 0, (1, 2, 4, 6, 8), 0, 64, SOMEPALLI, True
    )


def _static(name: str, tau: float, before: float, finer: bool = False) -> MitigationSpec:
    make: Any = lambda s, *_: StaticTransition(s, before, finer)  # noqa: E731
    grid = (900, 800, 700, 600, 500, 400)
    return MitigationSpec(name, make, f"tau, the timestep until which the scale is {before:g}", tau, 1000, grid, 0, 1000, JAIN)


def _late(name: str, make: Callable[[float], Mitigation], default: float) -> MitigationSpec:
    grid = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    return MitigationSpec(
        name, lambda s, *_: make(s), "share of the steps after which guidance begins at the latest", default, 0, grid, 0, 1, JAIN
    )


SHARES = "share of the pads that are masked"
MULTIPLE = "target, in units of the threshold"
TARGETS = (1.5, 1.0, 0.75, 0.5, 0.25)
CATALOG = (
    MitigationSpec("wen.magnitude", _magnitude, MULTIPLE, 1.0, NEVER, TARGETS, 0, NEVER, WEN, gradients=True),
    MitigationSpec("wen.ld", _local, MULTIPLE, 1.0, NEVER, TARGETS, 0, NEVER, CHEN, gradients=True),
    *(_insertion(kind) for kind in ("words", "numbers", "repeats")),
    MitigationSpec(
        "memattn",
        lambda s, *_: AttentionScaling(s, 0.0 if s == 1 else 1.0),
        "c1 of the begin token, all pads masked (1: neither)",
        1.25, 1, (1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.5), 1, 100, REN,
    ),
    MitigationSpec("memattn.begin", lambda s, *_: AttentionScaling(s, 0.0), "c1 of the begin token", 1.25, 1, (1.1, 1.25, 1.5, 2), 1, 100, REN),  # noqa: E501
    MitigationSpec("memattn.pads", lambda s, *_: AttentionScaling(1.0, s), f"{SHARES}, alone", 1, 0, (0.25, 0.5, 0.75, 1), 0, 1, f"after {REN}"),  # noqa: E501
    _static("stp", 500, 0.0),
    _static("stp.finer", 500, 0.0, finer=True),
    _static("og_stp", 650, -2.0),
    _late("dtp", DynamicTransition, 0.5),
    _late("dtp.scale_1", lambda s: DynamicTransition(s, 1.0), 0.5),
    _late("og_dtp", OppositeDynamic, 1.0),
    _late("og_dtp.toggled", lambda s: OppositeDynamic(s, toggled=True), 1.0),
    MitigationSpec("noise", lambda s, *_: NoiseSelection(int(s)), "first noises to choose from", 8, 1, (2, 4, 8, 16), 1, 1024, f"after {WEN}", True),  # noqa: E501
    MitigationSpec("prss", _reanchoring, "other captions that are tried", 25, 0, (5, 10, 25), 0, 1000, CHEN, True),
)  # fmt: skip


def named(patterns: Sequence[str]) -> list[MitigationSpec]:
    """The mitigations whose names match (shell wildcards); ValueError names a pattern that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(entry.name, pattern) for entry in CATALOG):
            raise ValueError(f"No mitigation is named '{pattern}'; `afterglow mitigate --list` names them all.")
    return [entry for entry in CATALOG if any(fnmatchcase(entry.name, pattern) for pattern in patterns)]


def plan(entries: Sequence[MitigationSpec], strengths: Sequence[str]) -> list[tuple[MitigationSpec, float]]:
    """Each mitigation with its strengths: its default one, with 'grid' those of its grid, with 'NAME=1,2' these.

    Raises ValueError for a word that is none of these, or a mitigation that is not asked for.
    """
    given: dict[str, list[float]] = {}
    for word in strengths:
        name, _, values = word.partition("=")
        if word == "grid":
            continue
        if name not in {entry.name for entry in entries}:
            raise ValueError(f"A strength is 'grid' or NAME=NUMBER,NUMBER of a mitigation that is asked for, and not '{word}'.")
        try:
            given[name] = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise ValueError(f"The strengths of {name} are numbers, and not '{values}'.") from error
    usual = {entry.name: list(entry.grid) if "grid" in strengths else [entry.default] for entry in entries}
    return [(entry, strength) for entry in entries for strength in given.get(entry.name, usual[entry.name])]


def check_text(model: Denoiser, entries: Sequence[MitigationSpec]) -> None:
    """Raises ValueError that names the mitigations where a model has no captions: each changes what a caption does."""
    if not model.has_text and entries:
        names = ", ".join(entry.name for entry in entries)
        raise ValueError(f"{names}: a mitigation changes what a caption does, and {type(model).__name__} has no captions.")
