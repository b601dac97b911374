"""Attack mitigations: can an optimized text embedding bring back the copies that a mitigation removed?

  afterglow retrigger --model runs/demo --run runs/demo --mitigations stp memattn --num-inference-steps 12 --out retrigger
  afterglow retrigger --model runs/other --run runs/demo --out never-seen

For each plant one embedding is optimized on the model, within a stated budget, until the model denoises the plant's image under it
(its region, for a local plant). Then every mitigation is sampled with the captions and with these embeddings. Two controls: phantoms,
whole images and regions that were never trained on, and a model that never saw the plants (the second command, which leaves out images
that this model was trained on). If these copies come "back" too, the embedding describes an image that the model did not memorize;
only plants that come back more often than the controls are retrieved. Generations are kept; a second call resumes.
"""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.options import MODEL, add_generation_arguments, add_planted_arguments, add_sampler_arguments, load_model, sampler_from
from afterglow.cli.parser import announce, count, finite, positive
from afterglow.errors import AfterglowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from afterglow.evaluation.requests import EvalRequest
    from afterglow.mitigations.registry import MitigationSpec
    from afterglow.models.denoiser import Denoiser
    from afterglow.planting.targets import Target
    from afterglow.sampling.recorder import CaptureConfig
    from afterglow.sampling.setup import Mitigation

_KINDS = ("global", "local", "natural", "phantom")
_PHANTOMS = {True: "whole phantom", False: "phantom region"}  # by whether the mask is the whole image
_MEASURES = ("calibrated_l2", "correlation", "memorized", "nn_ratio")


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--run", type=Path, required=True, help="run folder: its plants and phantoms")
    parser.add_argument("--mitigations", nargs="*", default=["stp"], metavar="NAME", help="names of mitigations; wildcards are allowed")
    parser.add_argument("--strengths", nargs="+", default=[], metavar="NAME=X,Y", help="strengths (default: one strength of each)")
    add_planted_arguments(parser)
    parser.add_argument(
        "--pool",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="retrigger.parquet of other models, also counted in the printed table (default: none)",
    )
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
    from afterglow.mitigations.registry import check_text, expand_strengths, find_mitigations

    settings = expand_strengths(find_mitigations(args.mitigations), args.strengths)
    announce(f"Opening {args.model} ...")
    import numpy as np
    import pandas as pd
    import torch

    from afterglow.evaluation.build_requests import planted_request, select_targets
    from afterglow.files import read_parquet
    from afterglow.mitigations.retrigger import AttackBudget, Triggered, find_triggers

    pooled = [read_parquet(file, ("mitigation", "attack", "kind", "measure", "value")) for file in args.pool]
    budget = AttackBudget(args.attack_steps, args.attack_rate, args.attack_noises, args.restarts)
    model = load_model(args.model)
    check_text(model, [spec for spec, _ in settings])
    request = planted_request(model, args.run, num_controls=0, num_heldout=0, kinds=_KINDS)
    unseen = unseen_targets(model, args.model, args.run, request.targets)
    request = replace(request, targets=select_targets(unseen, None, args.plants))
    print(f"Attacking {len(request.targets)} images: {budget}")
    images, masks = (torch.from_numpy(np.stack([getattr(target, name) for target in request.targets])) for name in ("reference", "mask"))
    triggers = find_triggers(model, request.captions, images, masks, budget, args.seed)
    made = make_mitigations(args, model, settings)
    rows = pd.concat(
        planted_rows(args, model, request, name + "+attack" * attack, used).assign(mitigation=name, attack=attack)
        for name, each in made.items()
        for attack, used in ((False, each), (True, Triggered(each, budget, triggers)))
    )
    whole = {target.plant_id: bool(target.mask.all()) for target in request.targets}
    phantoms = rows["plant_id"].map(whole).map(_PHANTOMS)
    rows = rows.assign(kind=rows["kind"].where(rows["kind"] != "phantom", phantoms))
    rows.to_parquet(args.out / "retrigger.parquet", index=False)
    print(retrigger_text(pd.concat([rows, *pooled])))
    print(f"\n{args.out}: retrigger.parquet")


def make_mitigations(
    args: Namespace, model: "Denoiser", settings: "Sequence[tuple[MitigationSpec, float]]"
) -> "dict[str, Mitigation | None]":
    """{"none" or NAME=STRENGTH: mitigation}; controls are sampled for the thresholds of those that need some."""
    from afterglow.analysis.thresholds import control_thresholds
    from afterglow.cli.mitigate import threshold_capture
    from afterglow.evaluation.build_requests import planted_request
    from afterglow.generations import Generations

    if not settings:
        return {"none": None}
    controls = planted_request(model, args.run, num_controls=args.controls, num_heldout=0, kinds=["control"])
    parts = sample_planted(args, model, controls, "controls", threshold_capture(model))
    thresholds = control_thresholds(map(Generations.load, parts))
    return {"none": None} | {f"{spec.name}={strength:g}": spec(strength, thresholds) for spec, strength in settings}


def unseen_targets(model: "Denoiser", source: str, run: Path, targets: "Sequence[Target]") -> "list[Target]":
    """The targets; of another run's model those that a planting would not take for near-duplicates of its own training images.

    Args:
        model: what is attacked.
        source: where it comes from.
        run: folder of the run that planted the targets.
        targets: plants and phantoms, with references.

    Raises:
        AfterglowError: if none is left.
    """
    import numpy as np
    import torch

    from afterglow.evaluation.training_set import training_set
    from afterglow.planting.planner import ELIGIBLE_DISTANCE

    if not (Path(source) / "config.yaml").is_file() or Path(source).samefile(run):
        return list(targets)
    images, masks = (torch.from_numpy(np.stack([getattr(target, name) for target in targets])) for name in ("reference", "mask"))
    near = training_set(model, planted=Path(source)).gallery(model.device).nearest(images, masks, num_clusters=1)
    unseen = [target for target, distance in zip(targets, near.distances[:, 0].tolist(), strict=True) if distance > ELIGIBLE_DISTANCE]
    print(
        f"{source} was trained on {len(targets) - len(unseen)} of {len(targets)} images of {run} or on near-duplicates of them; these "
        "images are left out"
    )
    if not unseen:
        raise AfterglowError(f"'{source}' was trained on every plant and phantom of '{run}'.")
    return unseen


def sample_planted(
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


def planted_rows(
    args: Namespace, model: "Denoiser", request: "EvalRequest", name: str, mitigation: "Mitigation | None" = None
) -> "pd.DataFrame":
    """Measurements of the generations of one request, which tell the copies."""
    import pandas as pd

    from afterglow.evaluation.measurements import measure_generations
    from afterglow.generations import Generations
    from afterglow.sampling.recorder import CaptureConfig

    nothing = CaptureConfig(guidance=False, tokens=False, end_steps=())
    parts = sample_planted(args, model, request, name, nothing, mitigation)
    return pd.concat([measure_generations(Generations.load(part), _MEASURES).measurements for part in parts], ignore_index=True)


def retrigger_text(rows: "pd.DataFrame") -> str:
    """The memorized plants of each kind before and after the attack, one line for each mitigation.

    rows: columns mitigation, attack, kind, plant_id, measure, value, as retrigger.parquet has them.
    """
    from afterglow.reports.tables import count_text, text_table

    counts = rows[rows["measure"] == "plant_memorized"].groupby(["mitigation", "kind", "attack"], sort=False)["value"].agg(["sum", "size"])
    kinds = [kind for kind in (*_KINDS, *_PHANTOMS.values()) if kind in set(rows["kind"])]
    lines = [
        [name, *(count_text(*counts.loc[(name, kind, attack)].astype(int)) for kind in kinds for attack in (False, True))]
        for name in dict.fromkeys(rows["mitigation"])
    ]
    return text_table(["mitigation", *(f"{kind}{', attacked' * attack}" for kind in kinds for attack in (False, True))], lines)
