"""Attack mitigations: can an optimized text embedding bring back the copies that a mitigation removed?

  afterglow retrigger --model runs/demo --run runs/demo --mitigations stp memattn --num-inference-steps 12 --out retrigger
  afterglow retrigger --model runs/other --run runs/demo --out never-seen

For each plant one embedding is optimized on the model, within a stated budget, until the model denoises the plant's image under it
(its region, for a local plant). Then every mitigation is sampled with the captions and with these embeddings. Two controls: phantoms,
whose images were never trained on, and a model that never saw the plants (the second command). If their copies come "back" too, the
budget is so large that an embedding describes any image, and the attack shows nothing. Generations are kept; a second call resumes.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.options import MODEL, add_generation_arguments, add_planted_arguments, add_sampler_arguments, load_model, sampler_from
from afterglow.cli.parser import announce, count, finite, positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from afterglow.evaluation.requests import EvalRequest
    from afterglow.models.denoiser import Denoiser
    from afterglow.sampling.recorder import CaptureConfig
    from afterglow.sampling.setup import Mitigation

_KINDS = ("global", "local", "natural", "phantom")
_MEASURES = ("calibrated_l2", "correlation", "memorized", "nn_ratio")


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--run", type=Path, required=True, help="run folder: its plants and phantoms")
    parser.add_argument("--mitigations", nargs="+", default=["stp"], metavar="NAME", help="names of mitigations; wildcards are allowed")
    parser.add_argument("--strengths", nargs="+", default=[], metavar="NAME=X,Y", help="strengths (default: one strength of each)")
    add_planted_arguments(parser)
    parser.add_argument("--controls", type=count, default=16, metavar="N", help="controls, which set the thresholds of mitigations")
    budget = parser.add_argument_group("budget of the attack on each image")
    budget.add_argument("--attack-steps", type=positive, default=50, metavar="N", help="optimizer steps")
    budget.add_argument("--attack-rate", type=finite, default=0.1, metavar="X", help="learning rate of Adam, in units of the embedding")
    budget.add_argument("--attack-noises", type=positive, default=8, metavar="N", help="noises drawn for each step")
    budget.add_argument("--restarts", type=positive, default=2, metavar="N", help="first from the caption's embedding, then from noise")
    add_sampler_arguments(parser)
    add_generation_arguments(parser, "retrigger")


def run(args: Namespace) -> None:
    """Attack, sample every mitigation with and without the triggers, then write and print the counts."""
    announce(f"Opening {args.model} ...")
    import numpy as np
    import torch

    from afterglow.analysis.thresholds import control_thresholds
    from afterglow.cli.mitigate import threshold_capture
    from afterglow.evaluation.build_requests import planted_request
    from afterglow.generations import Generations
    from afterglow.mitigations.registry import check_text, expand_strengths, find_mitigations
    from afterglow.mitigations.retrigger import AttackBudget, Triggered, find_triggers

    budget = AttackBudget(args.attack_steps, args.attack_rate, args.attack_noises, args.restarts)
    settings = expand_strengths(find_mitigations(args.mitigations), args.strengths)
    model = load_model(args.model)
    check_text(model, [spec for spec, _ in settings])
    controls = planted_request(model, args.run, num_controls=args.controls, num_heldout=0, kinds=["control"])
    parts = _sample(args, model, controls, "controls", threshold_capture(model))
    thresholds = control_thresholds(map(Generations.load, parts))
    request = planted_request(model, args.run, num_controls=0, num_heldout=0, kinds=_KINDS, plants=args.plants)
    print(f"Attacking {len(request.targets)} images: {budget}")
    images, masks = (torch.from_numpy(np.stack([getattr(target, name) for target in request.targets])) for name in ("reference", "mask"))
    triggers = find_triggers(model, request.captions, images, masks, budget, args.seed)
    made = {"none": None} | {f"{spec.name}={strength:g}": spec(strength, thresholds) for spec, strength in settings}
    rows = _rows(args, model, request, {name: (each, Triggered(each, budget, triggers)) for name, each in made.items()})
    rows.to_parquet(args.out / "retrigger.parquet", index=False)
    print(retrigger_text(rows))
    print(f"\n{args.out}: retrigger.parquet")


def _sample(
    args: Namespace, model: "Denoiser", request: "EvalRequest", name: str, capture: "CaptureConfig", mitigation: "Mitigation | None" = None
) -> list[Path]:
    """The parts of the generations of one request, which are made unless they exist."""
    from afterglow.evaluation.requests import GenerationPlan
    from afterglow.evaluation.store import collect
    from afterglow.generations import parts_of

    collect(
        model, request, GenerationPlan(args.num_images, args.seed), args.out / name, sampler_from(args, model), capture,
        metadata={"model": args.model}, mitigation=mitigation, batch_size=args.batch_size,
    )  # fmt: skip
    return parts_of(args.out / name)


def _rows(
    args: Namespace, model: "Denoiser", request: "EvalRequest", pairs: "Mapping[str, tuple[Mitigation | None, Mitigation]]"
) -> "pd.DataFrame":
    """Measurements of the generations of each mitigation, alone and with the triggers; pairs: {name: (mitigation, with triggers)}."""
    import pandas as pd

    from afterglow.evaluation.measurements import measure_generations
    from afterglow.generations import Generations
    from afterglow.sampling.recorder import CaptureConfig

    nothing, frames = CaptureConfig(guidance=False, tokens=False, end_steps=()), []
    for name, both in pairs.items():
        for attack, used in zip((False, True), both, strict=True):
            for part in _sample(args, model, request, name + "+attack" * attack, nothing, used):
                measured = measure_generations(Generations.load(part), _MEASURES).measurements
                frames.append(measured.assign(mitigation=name, attack=attack))
    return pd.concat(frames, ignore_index=True)


def retrigger_text(rows: "pd.DataFrame") -> str:
    """The memorized plants of each kind before and after the attack, one line for each mitigation.

    rows: columns mitigation, attack, kind, plant_id, measure, value, as retrigger.parquet has them.
    """
    from afterglow.reports.tables import count_text, text_table

    counts = rows[rows["measure"] == "plant_memorized"].groupby(["mitigation", "kind", "attack"], sort=False)["value"].agg(["sum", "size"])
    kinds = [kind for kind in _KINDS if kind in set(rows["kind"])]
    lines = [
        [name, *(count_text(*counts.loc[(name, kind, attack)].astype(int)) for kind in kinds for attack in (False, True))]
        for name in dict.fromkeys(rows["mitigation"])
    ]
    return text_table(["mitigation", *(f"{kind}{', attacked' * attack}" for kind in kinds for attack in (False, True))], lines)
