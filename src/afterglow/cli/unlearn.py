"""Fine-tune a model away from images that it was trained on (data unlearning by SISS), and count the copies that are left.

  afterglow unlearn --model runs/demo --run runs/demo --plants 4 --num-inference-steps 12 --out unlearned
  afterglow unlearn --model runs/mine --run runs/mine --files cat.png dog.png --out unlearned

Some plants, or training images by their file names, are forgotten; the rest of the training set is kept. The folder receives the changed
model (unlearned/model, a diffusers folder that every command opens) and unlearning.parquet. The kept plants and the denoising loss of
held-out images show what else is lost.
"""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.options import MODEL, add_generation_arguments, add_sampler_arguments, load_model
from afterglow.cli.parser import announce, count, finite, positive
from afterglow.errors import AfterglowError

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    import pandas as pd

    from afterglow.evaluation.requests import EvalRequest
    from afterglow.models.denoiser import Denoiser
    from afterglow.planting.dataset import PlantedDataset
    from afterglow.planting.plants import PlantedSet


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--run", type=Path, required=True, help="run folder: the training set")
    what = parser.add_argument_group("what is forgotten")
    what.add_argument(
        "--kinds", nargs="+", default=["global", "local", "natural"], choices=["global", "local", "natural"], help="kinds of plants"
    )
    what.add_argument("--plants", type=count, metavar="N", help="the first N plants of each kind (default: all, without --files)")
    what.add_argument(
        "--files",
        nargs="+",
        default=[],
        metavar="NAME",
        help="training images by file name, as `afterglow audit` lists them (default: none)",
    )
    budget = parser.add_argument_group("fine-tuning")
    budget.add_argument("--steps", type=positive, default=60, metavar="N", help="optimizer steps")
    budget.add_argument("--pairs", type=positive, default=64, metavar="N", help="pairs of a kept and a forgotten image in each step")
    budget.add_argument("--rate", type=finite, default=5e-4, metavar="X", help="learning rate of AdamW")
    budget.add_argument(
        "--strength", type=finite, default=0.3, metavar="X", help="gradient that forgets, in units of the gradient that keeps"
    )
    parser.add_argument("--num-images", type=positive, default=4, metavar="N", help="generations of each caption, before and after")
    add_sampler_arguments(parser)
    add_generation_arguments(parser, "unlearning")


def run(args: Namespace) -> None:
    """Sample the plants, fine-tune, sample them again, then write the model and print the counts."""
    announce(f"Opening {args.model} ...")
    from afterglow.evaluation.build_requests import planted_request, select_targets
    from afterglow.kinds import COPYABLE
    from afterglow.mitigations.unlearning import UnlearningBudget, unlearn
    from afterglow.models.io import export
    from afterglow.planting.dataset import PlantedDataset
    from afterglow.planting.io import check_empty
    from afterglow.planting.runs import load_planted_set

    check_empty(args.out)
    budget = UnlearningBudget(args.steps, args.pairs, args.rate, args.strength)
    model, planted = load_model(args.model), load_planted_set(args.run)
    if not model.has_text:
        raise AfterglowError(f"unlearn samples captions, and {type(model).__name__} has no captions.")
    files = file_ids(planted, args.files)
    controls = len(planted.controls) if files else 0
    request = planted_request(model, args.run, num_controls=controls, num_heldout=0, kinds=(*COPYABLE, "control"))
    copyable = [target for target in request.targets if target.kind in COPYABLE]
    most = 0 if files and args.plants is None else args.plants
    forgotten = {target.plant_id for target in select_targets(copyable, args.kinds, most)} | files
    request = replace(request, targets=[target for target in request.targets if target.kind in COPYABLE or target.plant_id in forgotten])
    samples = PlantedDataset(planted, args.seed)
    states = [_state(args, model, planted, request, "before")]
    unlearn(model, samples, forgotten_samples(samples, forgotten), budget, args.seed)
    states.append(_state(args, model, planted, request, "after"))
    export(model, args.out / "model")
    _write(args, states, forgotten)


def file_ids(planted: "PlantedSet", files: "Collection[str]") -> set[int]:
    """Ids of the targets of training images with these file names; AfterglowError if one is no training image of its own."""
    rows = {planted.names[row]: row for row in planted.controls.tolist()} if planted.names else {}
    if missing := [name for name in files if name not in rows]:
        raise AfterglowError(f"'{missing[0]}' is not among the {len(rows)} training images that are shown once per epoch.")
    return {len(planted.plants) + rows[name] for name in files}


def forgotten_samples(samples: "PlantedDataset", forgotten: "Collection[int]") -> "np.ndarray":
    """Which samples of the first epoch belong to the targets with these ids, bool [epoch length]."""
    import numpy as np

    planted, keys = samples.planted, samples.keys(range(samples.epoch_length))
    ids = np.array([*(plant.plant_id for plant in planted.plants), -1])  # -1: the place of no plant
    return np.isin(np.where(keys[:, 0] < 0, len(planted.plants) + keys[:, 1], ids[keys[:, 0]]), list(forgotten))


def _state(args: Namespace, model: "Denoiser", planted: "PlantedSet", request: "EvalRequest", name: str) -> "pd.DataFrame":
    """Measurements of the model before or after: its generations, and the denoising losses of held-out and training images."""
    import pandas as pd

    from afterglow.cli.retrigger import planted_rows
    from afterglow.evaluation.denoising_loss import denoising_loss_rows

    losses = denoising_loss_rows(model, planted, batch_size=args.batch_size)
    frames = [planted_rows(args, model, request, name), losses[losses["measure"] == "denoising_loss"]]
    return pd.concat(frames, ignore_index=True).assign(state=name)


def _write(args: Namespace, states: "list[pd.DataFrame]", forgotten: "Collection[int]") -> None:
    import pandas as pd

    rows = pd.concat(states, ignore_index=True)
    rows = rows.assign(forgotten=rows["plant_id"].isin(forgotten))
    rows.to_parquet(args.out / "unlearning.parquet", index=False)
    print(unlearning_text(rows))
    print(f"\n{args.out}: model, unlearning.parquet")


def unlearning_text(rows: "pd.DataFrame") -> str:
    """The memorized plants before and after, forgotten and kept, and the mean denoising losses.

    rows: columns state, forgotten, kind, measure, value, as unlearning.parquet has them.
    """
    from afterglow.reports.tables import count_text, text_table

    states = ("before", "after")
    counts = rows[rows["measure"] == "plant_memorized"].groupby(["kind", "forgotten", "state"], sort=False)["value"].agg(["sum", "size"])
    lines = [
        [kind, "forgotten" if forgotten else "kept", *(count_text(*counts.loc[(kind, forgotten, state)].astype(int)) for state in states)]
        for kind, forgotten in dict.fromkeys((kind, forgotten) for kind, forgotten, _ in counts.index)
    ]
    losses = rows[rows["measure"] == "denoising_loss"].groupby(["kind", "state"])["value"].mean()
    quality = [f"{kind} {losses[kind, 'before']:.4f} -> {losses[kind, 'after']:.4f}" for kind in losses.index.unique("kind")]
    return f"{text_table(['memorized', '', *states], lines)}\n\nDenoising loss: {', '.join(quality)}"
