"""The same captions and seeds without and with each mitigation: what is still copied, and what that costs. It goes on where it was killed.

  python analysis/mitigate.py --model runs/demo --planted runs/demo --mitigations '*' --out mitigation
  python analysis/mitigate.py --model DIR --prompts captions.jsonl --mitigations stp memattn --strengths stp=500,700 --guidance 7.5 --out m
  python analysis/mitigate.py --list

Everything that was generated lies in the folder and is never generated again: a second call with other mitigations adds to the first.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from afterglow import distributed
from afterglow.analysis.mitigation_effect import BASELINE, images_only, mitigation_rows, mitigation_table, number_row
from afterglow.analysis.thresholds import Thresholds, of_controls, published
from afterglow.cli.options import sampler_of, sampler_options
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.evaluation.embeddings import PatchTokens, patch_tokens
from afterglow.evaluation.plan import GenerationPlan
from afterglow.evaluation.requests import (
    EvalRequest,
    PlantFilter,
    heldout_features,
    planted_request,
    prompt_request,
    with_embeddings,
    with_quality,
)
from afterglow.evaluation.store import collect
from afterglow.generations import Generations, parts_of
from afterglow.loggers.run_logger import log_analysis
from afterglow.measures.bright_ending import BRIGHT_ENDING_LAYERS
from afterglow.mitigations.cost import CostTracker, remembered_gflops
from afterglow.mitigations.inference.reanchoring import read_paraphrases
from afterglow.mitigations.registry import CATALOG, MitigationInputs, MitigationSpec, check_text, named, plan
from afterglow.models.denoiser import Denoiser
from afterglow.models.io import open_model
from afterglow.reports.mitigation import first_generations, mitigation_gallery, mitigation_text, tradeoff_figure
from afterglow.reports.tables import text_table
from afterglow.sampling.loop import cross_attention_of
from afterglow.sampling.recorder import CaptureConfig
from afterglow.sampling.setup import Mitigation


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--list", action="store_true", help="name every mitigation, what its strength is and where it does nothing")
    add("--model", help="run folder, checkpoint, diffusers folder or hub id")
    add("--planted", type=Path, help="run folder: its plants, controls and held-out captions")
    add("--prompts", type=Path, help="or a list of captions (.jsonl, .csv, .txt)")
    add("--out", type=Path, default=Path("mitigation"), help="the folder of all collections, tables and figures")
    add("--mitigations", nargs="+", default=["*"], metavar="NAME", help="names, with wildcards")
    add("--strengths", nargs="+", default=[], metavar="NAME=X,Y", help="of a mitigation, or 'grid' for all; else each one's default")
    add("--kinds", nargs="+", default=["global", "local", "natural", "control", "heldout"], help="with --planted: what to ask for")
    add("--plants", type=int, help="with --planted: at most so many of each kind that was planted")
    add("--controls", type=int, default=32, help="with --planted: how many controls; they also set thresholds")
    add("--heldout", type=int, default=64, help="with --planted: how many held-out captions; they tell quality")
    add("--thresholds", default="controls", choices=["controls", "published"], help="their 99th percentile; or Stable Diffusion's numbers")
    add("--trigger", type=float, default=0.0, help="in thresholds: captions whose loss is at most this are not optimized")
    add("--paraphrases", type=Path, help="for prss: .jsonl with caption and paraphrases")
    add("--num-images", type=int, default=4, help="generations of each caption")
    sampler_options(parser)
    add("--seed", type=int, default=0, help="the first seed")
    add("--sscd", help="SSCD's TorchScript file, or 'immaculate' for the package")
    add("--sscd-transform", default="skew_320", help="resize_288, skew_320 or crop_224")
    add("--clip", help="folder of a CLIP model, for the agreement with captions")
    add("--features", help="folder of a vision transformer, for a Frechet distance")
    add("--batch-size", type=int, default=32, help="generations at a time")
    add("--run", type=Path, help="run folder whose W&B run gets the numbers and figures too")
    return parser


def ask(args: argparse.Namespace, model: Denoiser) -> tuple[EvalRequest, PatchTokens | None]:
    """What is generated and what is noted of it; patch tokens of a vision transformer, for the distance to held-out images."""
    if args.planted:
        select = PlantFilter(args.kinds, args.plants, args.heldout)
        request = planted_request(model, args.planted, num_controls=args.controls, select=select)
    else:
        request = prompt_request(model, args.prompts)
    features = patch_tokens(args.features) if args.features else None
    request = with_embeddings(request, sscd_file=args.sscd, sscd_transform=args.sscd_transform, tokens=None)
    return with_quality(request, args.clip, features), features


def main() -> None:
    """Name the mitigations, or refuse what cannot be before anything is generated, and compare."""
    args = options().parse_args()
    if args.list:
        rows = [[e.name, e.strength, *(f"{v:g}" for v in (e.default, e.neutral)), " ".join(map(str, e.grid)), e.source] for e in CATALOG]
        print(text_table(["mitigation", "strength", "default", "nothing at", "grid", "source"], rows))
        return
    configure_logging()
    with exit_on_user_error():
        if not args.model or (args.prompts is None) == (args.planted is None):
            raise SystemExit(options().error("say --model, and what to ask for: either --prompts LIST or --planted RUN"))
        extras = MitigationInputs(args.trigger, read_paraphrases(args.paraphrases) if args.paraphrases else {})
        settings = plan(named(args.mitigations), args.strengths)
        for entry, strength in settings:
            entry(strength, published(args.steps), extras)
        model = open_model(args.model).to(distributed.device(), distributed.dtype())
        check_text(model, [entry for entry, _ in settings])
        compare(args, model, settings, extras)


def compare(args: argparse.Namespace, model: Denoiser, settings: Sequence[tuple[MitigationSpec, float]], extras: MitigationInputs) -> None:
    """Collect without a mitigation, then with each; thresholds come from the controls of the first."""
    request, features = ask(args, model)
    plan, metadata = GenerationPlan(args.num_images, args.seed), {"model": args.model, "kinds": args.kinds}
    sampler = sampler_of(model, args)
    print(f"{len(request.captions)} captions, {args.num_images} images of each, without a mitigation and with each of {len(settings)}")
    ends = any(layer.startswith(BRIGHT_ENDING_LAYERS) for layer in cross_attention_of(model))
    capture = CaptureConfig(tokens=False, end_steps=(-1,) if ends else (), end_layers=(BRIGHT_ENDING_LAYERS,))

    def run(name: str, strength: float, label: str, mitigation: Mitigation | None = None) -> pd.DataFrame:
        collect(
            model, request, plan, args.out / label, sampler, capture,
            metadata=metadata, mitigation=CostTracker(mitigation), batch_size=args.batch_size,
        )  # fmt: skip
        parts = [images_only(Generations.load(part)) for part in parts_of(args.out / label)]
        shown[label.replace("=", " ")] = first_generations(parts)
        gflops = remembered_gflops(args.out / "gflops.json", label, model, one_image, mitigation)
        return pd.concat([mitigation_rows(name, strength, parts, images), number_row(name, strength, "cost.gflops", gflops)])

    one_image = sampler.setup(model, request.captions[:1], [args.seed])
    shown, images = {}, heldout_features(request, features)
    rows = [run(BASELINE, 0.0, BASELINE)]
    before = (Generations.load(part) for part in parts_of(args.out / BASELINE))
    thresholds = of_controls(before) if args.thresholds == "controls" else published(args.steps)
    for entry, strength in settings:
        rows.append(run(entry.name, strength, f"{entry.name}={strength:g}", entry(strength, thresholds, extras)))
    write(args, pd.concat(rows, ignore_index=True), thresholds, shown)


def write(args: argparse.Namespace, every: pd.DataFrame, thresholds: Thresholds, shown: dict[str, Any]) -> None:
    """Tables, figures and text of the comparison, and the tracker's numbers."""
    table = mitigation_table(every)
    every.to_parquet(args.out / "plants.parquet", index=False)
    table.to_parquet(args.out / "mitigation.parquet", index=False)
    text = f"{mitigation_text(table)}\n\nThresholds: {thresholds.origin}, {thresholds.magnitude[0]:.3g} at the first step."
    (args.out / "mitigation.md").write_text(text + "\n", encoding="utf-8")
    figures = {name: [args.out / f"{name}.{ending}" for ending in ("png", "svg")] for name in ("tradeoff", "gallery")}
    tradeoff_figure(table, figures["tradeoff"])
    mitigation_gallery(shown, figures["gallery"])
    print(text)
    print(f"\n{args.out}: plants.parquet, mitigation.parquet, mitigation.md, tradeoff and gallery as .png and .svg")
    if args.run:
        numbers = {f"mitigation/{r.mitigation}={r.strength:g}/{r.kind}_{r.measure}": r.value for r in table.itertuples()}
        print(log_analysis(args.run, numbers, {f"media/{name}": files[0] for name, files in figures.items() if files[0].exists()}))


if __name__ == "__main__":
    main()
