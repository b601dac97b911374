"""Generate samples from a model and record what measures read. An interrupted collection resumes where it stopped.

  afterglow collect --model runs/demo --run runs/demo --out generations/demo
  afterglow collect --model runs/demo --prompts captions.jsonl --num-images 4 --out generations/mine
  afterglow collect --model google/ddpm-cifar10-32 --dataset cifar10 --data-dir DIR --num-images 256 --out generations/cifar10
  accelerate launch --multi_gpu --num_processes 2 analysis/collect.py --model DIR --prompts captions.jsonl --out generations/two

The targets come from one of three options. --run: a run's plants, phantoms, decoys, tints and controls, compared with what was planted.
--prompts: a list of captions (.jsonl with `caption` and optional `image`, `mask`, `label`; NeMo's .csv; .txt with one caption per line).
--dataset: the training set of a model without captions. Unconditional models are sampled without prompts; each sample is compared with
the plant it copies, otherwise with its nearest training image (from --run or --dataset).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from afterglow.cli.options import (
    MODEL,
    add_dataset_arguments,
    add_sampler_arguments,
    add_set_size_argument,
    add_sscd_arguments,
    load_model,
    sampler_from,
)
from afterglow.cli.parser import announce, count, positive

_NUM_IMAGES = 4  # for each caption


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the collection")
    targets = parser.add_argument_group("targets")
    targets.add_argument("--run", type=Path, help="run folder: sample its plants and their counterparts (default: none)")
    targets.add_argument("--controls", type=count, default=64, metavar="N", help="with --run: number of controls")
    targets.add_argument("--prompts", type=Path, metavar="FILE", help="list of captions: .jsonl, .csv or .txt (default: none)")
    targets.add_argument(
        "--label-file", type=Path, metavar="FILE", help="file with a label for each caption, in NeMo's format (default: none)"
    )
    targets.add_argument("--default-label", default="prompt", metavar="KIND", help="kind of captions without a label, such as control")
    add_dataset_arguments(targets, "training set of a model without captions")
    add_set_size_argument(targets)
    targets.add_argument(
        "--num-images",
        type=positive,
        metavar="N",
        help="generations of each caption (default: 4), or in total without captions (default: 256)",
    )
    add_sampler_arguments(parser)
    parser.add_argument(
        "--seed-rule",
        choices=["image", "prompt", "constant"],
        default="image",
        help="seeds of the initial noise. image: the same seeds for every caption; prompt: seed + caption number; constant: one seed",
    )
    _add_recorded_arguments(parser.add_argument_group("recorded inputs of measures"))
    work = parser.add_argument_group("execution")
    work.add_argument("--batch-size", type=positive, default=32, metavar="N", help="generations at a time")
    work.add_argument(
        "--part-size", type=positive, default=8, metavar="N", help="captions in a part; an interruption loses at most one part"
    )


def _add_recorded_arguments(recorded: Any) -> None:
    recorded.add_argument(
        "--measures",
        nargs="+",
        default=["*"],
        metavar="NAME",
        help="record what these measures require; '*': all that need no second model",
    )
    recorded.add_argument(
        "--end-token", choices=["first_eos", "last", "eos_and_pads"], default="first_eos", help="end token whose attention weights LD"
    )
    recorded.add_argument("--curvature-vectors", type=positive, default=16, metavar="K", help="random vectors of Hutchinson's estimate")
    recorded.add_argument("--reference-checkpoint", metavar="MODEL", help="earlier checkpoint, for early_difference (default: none)")
    add_sscd_arguments(recorded)
    recorded.add_argument("--vit", metavar="DIR", help="folder of a vision transformer, for split_product (default: none)")


def run(args: Namespace) -> None:
    """Collect."""
    from afterglow.measures.registry import check_measures

    check_measures(args.measures)
    announce(f"Opening {args.model} ...")
    from afterglow import distributed
    from afterglow.evaluation.build_requests import build_request
    from afterglow.evaluation.embeddings import with_embeddings
    from afterglow.evaluation.evaluate import capture_config, required_inputs
    from afterglow.evaluation.requests import NUM_UNPROMPTED, GenerationPlan
    from afterglow.evaluation.store import collect

    model = load_model(args.model)
    requires = required_inputs(model, args.num_inference_steps, args.measures)
    request = build_request(
        model, prompts=args.prompts, planted=args.run, source=args.dataset, folder=args.data_dir, set_size=args.set_size,
        labels=args.label_file, kind=args.default_label, num_controls=args.controls, num_images=args.num_images or NUM_UNPROMPTED,
        requires=requires,
    )  # fmt: skip
    request = with_embeddings(request, sscd_file=args.sscd, sscd_transform=args.sscd_transform, tokens=args.vit)
    if model.has_text:
        plan = GenerationPlan(args.num_images or _NUM_IMAGES, args.seed, args.seed_rule, args.part_size)
    else:
        plan = GenerationPlan(1, args.seed, "prompt", args.batch_size)
    reference = load_model(args.reference_checkpoint) if args.reference_checkpoint else None
    capture = capture_config(requires, early=reference is not None, end_token=args.end_token, curvature_vectors=args.curvature_vectors)
    rank, world_size = distributed.rank_and_world_size()
    collect(
        model, request, plan, args.out, sampler_from(args, model), capture,
        rank=rank, world_size=world_size, metadata={"model": args.model}, early=reference, batch_size=args.batch_size,
    )  # fmt: skip
    if distributed.is_main_process():
        print(f"{args.out}: {len(request.captions)} prompts, {plan.num_images} generations each")
