"""A model and captions => a folder of generations, which every measure reads. It goes on where it was killed.

  python analysis/collect.py --model runs/demo --planted runs/demo --out generations/demo
  python analysis/collect.py --model runs/demo --prompts captions.jsonl --num-images 4 --out generations/mine
  python analysis/collect.py --model google/ddpm-cifar10-32 --source cifar10 --folder DIR --num-images 256 --out generations/cifar10
  accelerate launch --multi_gpu --num_processes 2 analysis/collect.py --model DIR --prompts captions.jsonl --out generations/two

--model is a run folder, a checkpoint, a diffusers folder or a hub id. --prompts is a list in its authors' format: .jsonl with `caption`
(and `image`, `mask`, `label` where there are), NeMo's .csv, or .txt. --planted asks for a run's plants, phantoms, decoys, tints and
controls, and judges them by what was planted. A model without text is asked for nothing: each generation is judged by the plant that it
copies, else by the nearest image of the run's set, or (a frozen model) of a --source.
"""

import argparse
from pathlib import Path

from afterglow import distributed
from afterglow.cli.options import sampler_of, sampler_options
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.evaluation.evaluate import capture_config, required_inputs
from afterglow.evaluation.plan import GenerationPlan
from afterglow.evaluation.requests import NUM_UNPROMPTED, build_request, with_embeddings
from afterglow.evaluation.store import collect
from afterglow.generations import END_TOKEN_RULES
from afterglow.models.io import open_model


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="run folder, checkpoint, diffusers folder or hub id")
    add("--prompts", type=Path, help="list of captions (.jsonl, .csv, .txt)")
    add("--labels", type=Path, help="another list, which says the kinds of the same captions (NeMo's VM and TM)")
    add("--kind", default="prompt", help="of captions without a label; 'control' for captions that are not memorized")
    add("--planted", type=Path, help="run folder: its plants and their counterparts instead of a list")
    add("--source", help="training set of a frozen model without text: cifar10, celeba, flowers102, fashion_mnist, openmoji, imagefolder")
    add("--folder", help="where the source lies")
    add("--set-size", type=int, help="of the source: its first images in the seeded order of trainings; default: all")
    add("--controls", type=int, default=64, help="with --planted: how many controls")
    add("--out", type=Path, required=True, help="the folder of the collection")
    add("--num-images", type=int, help="generations of each caption (4); of a model without text, in all (256)")
    sampler_options(parser)
    add("--seed", type=int, default=0, help="the first seed")
    add("--seed-rule", default="image", help="image: the same noises for every caption; prompt: seed + its number; constant")
    add("--end-token", default="first_eos", help=f"by which LD weights: {', '.join(END_TOKEN_RULES)}")
    add(
        "--measures",
        nargs="+",
        default=["*"],
        metavar="NAME",
        help="capture what these need ('ld.be.*'); '*' is all that needs no model beside",
    )
    add("--curvature-vectors", type=int, default=16, help="K of Hutchinson's estimate")
    add("--early", help="an earlier checkpoint of the same run, for early_difference")
    add("--sscd", help="SSCD's TorchScript file, or 'immaculate' for the package")
    add("--sscd-transform", default="skew_320", help="resize_288, skew_320 or crop_224")
    add("--tokens", help="folder of a vision transformer, for split_product")
    add("--batch-size", type=int, default=32, help="generations at a time")
    add("--prompts-per-part", type=int, default=8, help="captions in a part: what a kill can cost")
    return parser


def main() -> None:
    """Collect."""
    args = options().parse_args()
    configure_logging()
    with exit_on_user_error():
        model = open_model(args.model).to(distributed.device(), distributed.dtype())
        requires = required_inputs(model, args.steps, args.measures)
        request = build_request(
            model, prompts=args.prompts, planted=args.planted, source=args.source, folder=args.folder, set_size=args.set_size,
            labels=args.labels, kind=args.kind, num_controls=args.controls, num_images=args.num_images or NUM_UNPROMPTED, requires=requires,
        )  # fmt: skip
        request = with_embeddings(request, sscd_file=args.sscd, sscd_transform=args.sscd_transform, tokens=args.tokens)
        if model.has_text:
            plan = GenerationPlan(args.num_images or 4, args.seed, args.seed_rule, args.prompts_per_part)
        else:
            plan = GenerationPlan(1, args.seed, "prompt", args.batch_size)
        early = open_model(args.early).to(distributed.device(), distributed.dtype()) if args.early else None
        capture = capture_config(requires, early=early is not None, end_token=args.end_token, curvature_vectors=args.curvature_vectors)
        rank, world_size = distributed.share()
        collect(
            model, request, plan, args.out, sampler_of(model, args), capture,
            rank=rank, world_size=world_size, metadata={"model": args.model}, early=early, batch_size=args.batch_size,
        )  # fmt: skip
        if distributed.is_first():
            print(f"{args.out}: {len(request.captions)} prompts, {plan.num_images} generations each")


if __name__ == "__main__":
    main()
