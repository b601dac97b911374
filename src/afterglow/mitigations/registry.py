"""The mitigations at inference by name, with their strengths; a new mitigation is one more row of CATALOG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from afterglow.deferred import Deferred
from afterglow.errors import AfterglowError, did_you_mean

if TYPE_CHECKING:
    from afterglow.analysis.thresholds import Thresholds
    from afterglow.mitigations.inference.attention_scaling import AttentionScaling
    from afterglow.mitigations.inference.caption_insertion import CaptionInsertion
    from afterglow.mitigations.inference.guidance_schedule import DynamicTransition, OppositeDynamic, StaticTransition
    from afterglow.mitigations.inference.noise_selection import NoiseSelection
    from afterglow.mitigations.inference.pad_replacement import PadReplacement
    from afterglow.mitigations.inference.prompt_optimization import PromptOptimization
    from afterglow.mitigations.inference.reanchoring import Reanchoring
    from afterglow.models.denoiser import Denoiser
    from afterglow.sampling.setup import Mitigation
else:  # names are listed and refused without PyTorch
    _INFERENCE = "afterglow.mitigations.inference."
    AttentionScaling = Deferred(_INFERENCE + "attention_scaling").AttentionScaling
    CaptionInsertion = Deferred(_INFERENCE + "caption_insertion").CaptionInsertion
    DynamicTransition = Deferred(_INFERENCE + "guidance_schedule").DynamicTransition
    OppositeDynamic = Deferred(_INFERENCE + "guidance_schedule").OppositeDynamic
    StaticTransition = Deferred(_INFERENCE + "guidance_schedule").StaticTransition
    NoiseSelection = Deferred(_INFERENCE + "noise_selection").NoiseSelection
    PadReplacement = Deferred(_INFERENCE + "pad_replacement").PadReplacement
    PromptOptimization = Deferred(_INFERENCE + "prompt_optimization").PromptOptimization
    Reanchoring = Deferred(_INFERENCE + "reanchoring").Reanchoring

Make = Callable[[float, "Thresholds", "MitigationInputs"], "Mitigation"]
WEN, CHEN, REN, JAIN, SOMEPALLI = "Wen et al. 2024", "Chen et al. 2025", "Ren et al. 2024", "Jain et al. 2025", "Somepalli et al. 2023"
NEVER = float("inf")


@dataclass(frozen=True)
class MitigationInputs:
    """Further inputs of some mitigations."""

    trigger: float = 0.0  # of prompt optimization, in units of its threshold: captions below are not changed
    paraphrases: Mapping[str, Sequence[str]] | None = None  # by caption, for re-anchoring


@dataclass(frozen=True)
class MitigationSpec:
    """A mitigation at any strength."""

    name: str
    make: Make  # from a strength, thresholds and further inputs
    strength: str  # its meaning
    default: float
    identity_strength: float  # at which it changes nothing, though all of it runs
    grid: tuple[float, ...]  # strengths of a trade-off curve, the published ones if there are any
    low: float
    high: float
    source: str  # paper
    whole: bool = False  # strengths must be integers
    gradients: bool = False  # it computes gradients

    def __call__(self, strength: float, thresholds: "Thresholds", extras: MitigationInputs = MitigationInputs()) -> "Mitigation":  # noqa: B008
        """Create the mitigation; AfterglowError if the strength is out of range, or the model lacks a threshold that is required."""
        if not self.low <= strength <= self.high or (self.whole and strength != int(strength)):
            kind = "an integer" if self.whole else "a number"
            raise AfterglowError(
                f"The strength of {self.name} ({self.strength}) must be {kind} from {self.low:g} to {self.high:g}, not {strength:g}."
            )
        return self.make(strength, thresholds, extras)


def _magnitude(strength: float, thresholds: "Thresholds", extras: MitigationInputs) -> "Mitigation":
    first = thresholds.magnitude[0]
    return PromptOptimization(strength * first, extras.trigger * first)


def _local(strength: float, thresholds: "Thresholds", extras: MitigationInputs) -> "Mitigation":
    if thresholds.local is None:
        raise AfterglowError(
            "wen.ld requires end-token attention in a down block or in transformer block 0, which the model does not have."
        )
    return PromptOptimization(strength * thresholds.local, extras.trigger * thresholds.local, local=True)


def _reanchoring(strength: float, thresholds: "Thresholds", extras: MitigationInputs) -> "Mitigation":
    from afterglow.analysis.thresholds import UPPER

    low = thresholds.magnitude
    return Reanchoring(thresholds.search, low, [UPPER * value for value in low], int(strength), extras.paraphrases or {})


def _memattn(strength: float, *_: Any) -> "Mitigation":
    return AttentionScaling(strength, 0.0 if strength == 1 else 1.0)


def _insertion(kind: str) -> MitigationSpec:
    return MitigationSpec(
        f"insert_{kind}", lambda s, *_: CaptionInsertion(kind, int(s)), f"{kind} inserted", 4, 0, (1, 2, 4, 6, 8), 0, 64, SOMEPALLI, True
    )


def _static(name: str, tau: float, before: float, finer: bool = False) -> MitigationSpec:
    make: Any = lambda s, *_: StaticTransition(s, before, finer)  # noqa: E731
    grid = (900, 800, 700, 600, 500, 400)
    return MitigationSpec(name, make, f"tau, the timestep until which the scale is {before:g}", tau, 1000, grid, 0, 1000, JAIN)


def _late(name: str, make: "Callable[[float], Mitigation]", default: float) -> MitigationSpec:
    grid = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    return MitigationSpec(
        name, lambda s, *_: make(s), "fraction of the steps after which guidance begins at the latest", default, 0, grid, 0, 1, JAIN
    )


MULTIPLE = "target, in units of the threshold"
TARGETS = (1.5, 1.0, 0.75, 0.5, 0.25)
C1 = (1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.5)
CATALOG = (
    MitigationSpec("wen.magnitude", _magnitude, MULTIPLE, 1.0, NEVER, TARGETS, 0, NEVER, WEN, gradients=True),
    MitigationSpec("wen.ld", _local, MULTIPLE, 1.0, NEVER, TARGETS, 0, NEVER, CHEN, gradients=True),
    *(_insertion(kind) for kind in ("words", "numbers", "repeats")),
    MitigationSpec("memattn", _memattn, "c1 of the begin token, all padding masked (1: neither)", 1.25, 1, C1, 1, 100, REN),
    MitigationSpec("memattn.begin", lambda s, *_: AttentionScaling(s, 0.0), "c1 of the begin token", 1.25, 1, (1.1, 1.25, 1.5, 2), 1, 100, REN),  # noqa: E501
    MitigationSpec("memattn.pads", lambda s, *_: AttentionScaling(1.0, s), "fraction of the padding tokens that are masked", 1, 0, (0.25, 0.5, 0.75, 1), 0, 1, f"after {REN}"),  # noqa: E501
    MitigationSpec("pads_replaced", lambda s, *_: PadReplacement(bool(s)), "1: padding is '!', the end token masked", 1, 0, (1,), 0, 1, "Kim and No 2026", True),  # noqa: E501
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


def find_mitigations(patterns: Sequence[str]) -> list[MitigationSpec]:
    """The mitigations whose names match one of several names or shell wildcards, in the order of the catalog.

    Raises:
        AfterglowError: if a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(spec.name, pattern) for spec in CATALOG):
            hint = did_you_mean(pattern, [spec.name for spec in CATALOG]) or "; `afterglow mitigate --list` lists all names."
            raise AfterglowError(f"There is no mitigation '{pattern}'{hint}")
    return [spec for spec in CATALOG if any(fnmatchcase(spec.name, pattern) for pattern in patterns)]


def expand_strengths(specs: Sequence[MitigationSpec], strengths: Sequence[str]) -> list[tuple[MitigationSpec, float]]:
    """Pair each mitigation with its strengths.

    Args:
        specs: the mitigations.
        strengths: 'grid' for the strengths of each grid instead of the default, NAME=1,2 for those of one mitigation.

    Raises:
        AfterglowError: if a word is neither, or names a mitigation that is not among `specs`.
    """
    given: dict[str, list[float]] = {}
    for word in strengths:
        name, _, values = word.partition("=")
        if word == "grid":
            continue
        if name not in {spec.name for spec in specs}:
            raise AfterglowError(f"A strength must be 'grid' or NAME=NUMBER,NUMBER of a requested mitigation, not '{word}'.")
        try:
            given[name] = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise AfterglowError(f"The strengths of {name} must be numbers, not '{values}'.") from error
    defaults = {spec.name: list(spec.grid) if "grid" in strengths else [spec.default] for spec in specs}
    return [(spec, strength) for spec in specs for strength in given.get(spec.name, defaults[spec.name])]


def check_text(model: "Denoiser", specs: Sequence[MitigationSpec]) -> None:
    """Raise AfterglowError that names the mitigations if the model has no captions."""
    if not model.has_text and specs:
        names = ", ".join(spec.name for spec in specs)
        raise AfterglowError(f"{names}: mitigations act on captions, and {type(model).__name__} has no captions.")
