"""Compare mitigations at inference with the unmitigated model on the same captions and seeds: remaining copies, quality and cost.

  afterglow mitigate --model runs/demo --run runs/demo --mitigations '*' --out mitigation
  afterglow mitigate --model DIR --prompts captions.jsonl --mitigations stp memattn --strengths stp=500,700 --guidance-scale 7.5 --out m
  afterglow mitigate --list

Generations are kept in the folder and never made again: a second call with other mitigations adds to the first. An interrupted comparison
resumes where it stopped.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterglow import keys
from afterglow.cli.options import (
    IMAGE_FILES,
    MODEL,
    add_planted_arguments,
    add_sampler_arguments,
    add_sscd_arguments,
    add_wandb_run_argument,
    load_model,
    log_to_wandb,
    sampler_from,
)
from afterglow.cli.parser import announce, count, finite, positive
from afterglow.errors import AfterglowError

if TYPE_CHECKING:
    import pandas as pd

    from afterglow.analysis.thresholds import Thresholds
    from afterglow.evaluation.embeddings import Encoder
    from afterglow.evaluation.requests import EvalRequest
    from afterglow.generations import Generations
    from afterglow.mitigations.registry import MitigationInputs, MitigationSpec
    from afterglow.models.denoiser import Denoiser
    from afterglow.sampling.recorder import CaptureConfig
    from afterglow.sampling.setup import Mitigation


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--list", action="store_true", help="list all mitigations, their strengths and their neutral strengths")
    parser.add_argument("--model", help=f"{MODEL} (default: none, required unless --list)")
    targets = parser.add_argument_group("targets")
    targets.add_argument("--run", type=Path, help="run folder: its plants, controls and held-out captions (default: none)")
    targets.add_argument("--prompts", type=Path, metavar="FILE", help="list of captions instead: .jsonl, .csv or .txt (default: none)")
    targets.add_argument(
        "--kinds",
        nargs="+",
        default=["global", "local", "natural", "control", "heldout"],
        metavar="KIND",
        help="with --run: kinds to sample",
    )
    add_planted_arguments(targets, "with --run: ")
    targets.add_argument("--controls", type=count, default=32, metavar="N", help="with --run: controls, which also set thresholds")
    targets.add_argument("--heldout", type=count, default=64, metavar="N", help="with --run: held-out captions, which measure quality")
    _add_mitigation_arguments(parser.add_argument_group("mitigations"))
    add_sampler_arguments(parser)
    quality = parser.add_argument_group("similarity and quality")
    add_sscd_arguments(quality)
    quality.add_argument("--clip", metavar="DIR", help="folder of a CLIP model, for the similarity to captions (default: none)")
    quality.add_argument("--vit", metavar="DIR", help="folder of a vision transformer, for a Frechet distance (default: pixels only)")
    output = parser.add_argument_group("execution and output")
    output.add_argument("--out", type=Path, default=Path("mitigation"), metavar="DIR", help="folder of generations, tables and figures")
    output.add_argument("--batch-size", type=positive, default=32, metavar="N", help="generations at a time")
    add_wandb_run_argument(output)


def _add_mitigation_arguments(mitigations: Any) -> None:
    mitigations.add_argument("--mitigations", nargs="+", default=["*"], metavar="NAME", help="names of mitigations; wildcards are allowed")
    mitigations.add_argument(
        "--strengths", nargs="+", default=[], metavar="NAME=X,Y", help="strengths, or 'grid' for all (default: one strength of each)"
    )
    mitigations.add_argument(
        "--thresholds",
        choices=["controls", "published"],
        default="controls",
        help="thresholds of detection: the 99th percentile of the controls, or those published for Stable Diffusion",
    )
    mitigations.add_argument(
        "--skip-below", type=finite, default=0.0, metavar="X", help="do not optimize captions whose loss is at most X thresholds"
    )
    mitigations.add_argument(
        "--paraphrases", type=Path, metavar="FILE", help="for prss: .jsonl with caption and paraphrases (default: none)"
    )


def run(args: Namespace) -> None:
    """List the mitigations, or compare them; what cannot work is refused before anything is generated."""
    if not args.list and (not args.model or (args.prompts is None) == (args.run is None)):
        raise AfterglowError("Give --model and the targets: either --run RUN or --prompts FILE.")
    from afterglow.mitigations.registry import MitigationInputs, check_text, expand_strengths, find_mitigations

    if args.list:
        _print_mitigations()
        return
    settings = expand_strengths(find_mitigations(args.mitigations), args.strengths)
    announce(f"Opening {args.model} ...")
    from afterglow.analysis.thresholds import published_thresholds
    from afterglow.mitigations.inference.caption_insertion import read_paraphrases

    inputs = MitigationInputs(args.skip_below, read_paraphrases(args.paraphrases) if args.paraphrases else {})
    for spec, strength in settings:
        spec(strength, published_thresholds(args.num_inference_steps), inputs)
    model = load_model(args.model)
    check_text(model, [spec for spec, _ in settings])
    _compare(args, model, settings, inputs)


def _print_mitigations() -> None:
    from afterglow.mitigations.registry import CATALOG
    from afterglow.reports.tables import text_table

    rows = [
        [e.name, e.strength, *(f"{v:g}" for v in (e.default, e.identity_strength)), " ".join(map(str, e.grid)), e.source] for e in CATALOG
    ]
    print(text_table(["mitigation", "strength", "default", "neutral", "grid", "source"], rows))


def _request(args: Namespace, model: "Denoiser") -> "tuple[EvalRequest, Encoder | None]":
    """What is sampled and computed, and the vision transformer of the Frechet distance."""
    from afterglow.evaluation.build_requests import planted_request, prompt_request
    from afterglow.evaluation.embeddings import patch_tokens, with_embeddings, with_quality

    if args.run:
        counts = {"num_controls": args.controls, "num_heldout": args.heldout, "plants": args.plants}
        request = planted_request(model, args.run, kinds=args.kinds, **counts)
    else:
        request = prompt_request(model, args.prompts)
    request = with_embeddings(request, sscd_file=args.sscd, sscd_transform=args.sscd_transform, tokens=None)
    features = patch_tokens(args.vit) if args.vit else None
    return with_quality(request, args.clip, features), features


def threshold_capture(model: "Denoiser") -> "CaptureConfig":
    """What thresholds read: the guidance, and the end tokens of the first block's layers at the last step if the model has such a block."""
    from afterglow.attention_names import first_block
    from afterglow.sampling.attention import cross_attention_layers
    from afterglow.sampling.recorder import CaptureConfig

    first = first_block(cross_attention_layers(model.unet))
    return CaptureConfig(tokens=False, end_steps=(-1,) if first else (), end_layers=(first,))


def _compare(args: Namespace, model: "Denoiser", settings: "Sequence[tuple[MitigationSpec, float]]", inputs: "MitigationInputs") -> None:
    """Collect without a mitigation, then with each; thresholds come from the controls of the first collection."""
    import pandas as pd

    from afterglow.analysis.mitigation_effect import BASELINE, images_only, mitigation_rows, number_row
    from afterglow.analysis.thresholds import control_thresholds, published_thresholds
    from afterglow.evaluation.embeddings import heldout_features
    from afterglow.evaluation.requests import GenerationPlan
    from afterglow.evaluation.store import collect
    from afterglow.generations import Generations, parts_of
    from afterglow.mitigations.cost import CostTracker, cached_gflops
    from afterglow.reports.mitigation import first_generations

    request, features = _request(args, model)
    plan, metadata = GenerationPlan(args.num_images, args.seed), {"model": args.model, "kinds": args.kinds}
    sampler = sampler_from(args, model)
    print(
        f"{len(request.captions)} captions, {args.num_images} images of each, without a mitigation and with each of "
        f"{len(settings)} settings"
    )
    capture = threshold_capture(model)

    def collect_with(name: str, strength: float, label: str, mitigation: "Mitigation | None" = None) -> pd.DataFrame:
        collect(
            model, request, plan, args.out / label, sampler, capture,
            metadata=metadata, mitigation=CostTracker(mitigation), batch_size=args.batch_size,
        )  # fmt: skip
        parts = [images_only(Generations.load(part)) for part in parts_of(args.out / label)]
        examples[label.replace("=", " ")] = first_generations(parts)
        gflops = cached_gflops(args.out / "gflops.json", label, model, one_image, mitigation)
        return pd.concat([mitigation_rows(name, strength, parts, images), number_row(name, strength, "cost.gflops", gflops)])

    one_image = sampler.setup(model, request.captions[:1], [args.seed])
    examples: dict[str, dict[int, Generations]] = {}
    images = heldout_features(request, features)
    rows = [collect_with(BASELINE, 0.0, BASELINE)]
    baseline = (Generations.load(part) for part in parts_of(args.out / BASELINE))
    thresholds = control_thresholds(baseline) if args.thresholds == "controls" else published_thresholds(args.num_inference_steps)
    for spec, strength in settings:
        rows.append(collect_with(spec.name, strength, f"{spec.name}={strength:g}", spec(strength, thresholds, inputs)))
    _write(args, pd.concat(rows, ignore_index=True), thresholds, examples)


def _write(args: Namespace, rows: "pd.DataFrame", thresholds: "Thresholds", examples: "Mapping[str, Mapping[int, Generations]]") -> None:
    """Tables, figures and text of the comparison, and the numbers for W&B."""
    from afterglow.analysis.mitigation_effect import mitigation_table
    from afterglow.reports.mitigation import mitigation_gallery, mitigation_text, tradeoff_figure

    table = mitigation_table(rows)
    rows.to_parquet(args.out / "plants.parquet", index=False)
    table.to_parquet(args.out / "mitigation.parquet", index=False)
    text = f"{mitigation_text(table)}\n\nThresholds: {thresholds.origin}, {thresholds.magnitude[0]:.3g} at the first step."
    (args.out / "mitigation.md").write_text(text + "\n", encoding="utf-8")
    figures = {name: [args.out / f"{name}.{ending}" for ending in IMAGE_FILES] for name in ("tradeoff", "gallery")}
    tradeoff_figure(table, figures["tradeoff"])
    mitigation_gallery(examples, figures["gallery"])
    print(text)
    print(f"\n{args.out}: plants.parquet, mitigation.parquet, mitigation.md, tradeoff and gallery as .png and .svg")
    numbers = {keys.mitigation(f"{r.mitigation}={r.strength:g}", f"{r.kind}_{r.measure}"): r.value for r in table.itertuples()}
    log_to_wandb(args.wandb_run, numbers, {f"media/{name}": files[0] for name, files in figures.items()})
