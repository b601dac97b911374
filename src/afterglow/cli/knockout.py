"""Count the copies that remain when the states of one group of tokens are replaced by their mean over the training captions.

  afterglow knockout --model runs/demo --run runs/demo --num-inference-steps 12 --out knockout

The groups are BOS, words, first end token, padding, and end token with padding; `only_GROUP` replaces all other groups instead, `none`
replaces nothing and `all` everything. Every variant samples the same captions from the same noise. Phantoms are the control. The command
also prints which share of each group's states depends on the caption. Generations are kept in the folder; an interrupted call resumes.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow.cli.options import MODEL, add_generation_arguments, add_planted_arguments, add_sampler_arguments, load_model, sampler_from
from afterglow.cli.parser import announce, count
from afterglow.kinds import TRAINED

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("calibrated_l2", "memorized", "nn_ratio")


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--run", type=Path, required=True, help="run folder: its plants, phantoms, and the captions of its training set")
    parser.add_argument("--kinds", nargs="+", default=["global", "local", "natural", "phantom"], metavar="KIND", help="kinds to sample")
    add_planted_arguments(parser)
    parser.add_argument("--controls", type=count, default=0, metavar="N", help="controls, if --kinds names them")
    add_sampler_arguments(parser)
    add_generation_arguments(parser, "knockout")


def run(args: Namespace) -> None:
    """Sample every variant, then write and print the counts."""
    announce(f"Opening {args.model} ...")
    import pandas as pd

    from afterglow.evaluation.build_requests import planted_request
    from afterglow.evaluation.measurements import measure_generations
    from afterglow.evaluation.requests import GenerationPlan
    from afterglow.evaluation.store import collect
    from afterglow.generations import Generations, parts_of
    from afterglow.planting.runs import load_planted_set
    from afterglow.sampling.knockout import KNOCKOUTS, KnockOut, caption_means
    from afterglow.sampling.recorder import CaptureConfig

    model = load_model(args.model)
    planted = load_planted_set(args.run)
    captions = {planted.captions[row] for row in planted.controls} | {p.caption for p in planted.plants if p.kind in TRAINED}
    means = caption_means(model, sorted(captions))
    request = planted_request(model, args.run, num_controls=args.controls, num_heldout=0, kinds=args.kinds, plants=args.plants)
    nothing = CaptureConfig(guidance=False, tokens=False, end_steps=())
    plan, sampler, frames = GenerationPlan(args.num_images, args.seed), sampler_from(args, model), []
    for name, groups in KNOCKOUTS.items():
        collect(
            model, request, plan, args.out / name, sampler, nothing,
            metadata={"model": args.model, "kinds": args.kinds}, mitigation=KnockOut(groups, means), batch_size=args.batch_size,
        )  # fmt: skip
        for part in parts_of(args.out / name):
            frames.append(measure_generations(Generations.load(part), MEASURES).measurements.assign(knockout=name))
    about = {"plant_id": -1, "kind": "all", "caption": "", "seed": -1, "measure": "caption_share"}
    shares = pd.DataFrame([about | {"value": share, "knockout": group} for group, share in means.caption_share.items()])
    rows = pd.concat([*frames, shares.dropna(subset="value")], ignore_index=True)
    rows.to_parquet(args.out / "knockout.parquet", index=False)
    print(knockout_text(rows))
    print(f"\n{args.out}: knockout.parquet")


def knockout_text(rows: "pd.DataFrame") -> str:
    """The counts of every variant and kind, and the caption's share of each group.

    rows: columns knockout, kind, plant_id, measure, value, as knockout.parquet has them.
    """
    from afterglow.analysis.knockout import count_copies
    from afterglow.functional.distances import COPY_LIMITS
    from afterglow.reports.tables import text_table

    shares = rows[rows["measure"] == "caption_share"].set_index("knockout")["value"]
    memorized = rows[rows["measure"] == "plant_memorized"].groupby(["knockout", "kind"])["value"].agg(["sum", "size"])
    table = []
    for key, part in count_copies(rows).groupby(["knockout", "kind"], sort=False):
        counts = part.groupby("rule")[["copies", "generations"]].sum().loc[list(COPY_LIMITS)]
        pairs = (*counts.itertuples(index=False), memorized.loc[key])
        table.append([*key, *(f"{int(count)} of {int(size)}" for count, size in pairs)])
    header = ["replaced", "kind", "copies (calibrated)", "copies (d1/d2)", "memorized plants"]
    listed = ", ".join(f"{group} {share:.2f}" for group, share in shares.items())
    return f"{text_table(header, table)}\n\nShare of the states that depends on the caption: {listed}"
