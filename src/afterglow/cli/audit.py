"""Find which of your images a model copies, whole or in part, and since which checkpoint. Nothing needs to be planted.

  afterglow audit --model my-ddpm --data photos
  afterglow audit --model stable-diffusion --lora mine.safetensors --data photos --heldout more-photos --guidance-scale 7.5
  afterglow audit --model runs/mine --data photos --checkpoints runs/mine/checkpoints/step=*.ckpt --fail-on copied

The model is sampled with the captions of the images, without any where they have none. Every generation is compared with every image,
whole and in tiles. The limits of both comparisons come from images that the model never saw (--heldout, or those that a run held out);
without any, each of the images takes their place and is compared with all others. An interrupted audit resumes.

The results are audit.html, a page with all copies; audit.parquet; and a table in the terminal. Exit codes: 0; 2 for bad input; 5 if
--fail-on finds what it names.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from afterglow import keys
from afterglow.cli.options import MODEL, add_sampler_arguments, add_wandb_run_argument, load_model, log_to_wandb, sampler_from
from afterglow.cli.parser import announce, positive

MAX_IMAGES, PER_IMAGE = 1024, 4
FOUND = 5  # exit code


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--lora", type=Path, metavar="FILE", help="LoRA that is merged into a Stable Diffusion model (default: none)")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="earlier states of the model, or earlier LoRA files (default: none), in the order of the last number in their names",
    )
    parser.add_argument("--out", type=Path, default=Path("audit"), metavar="DIR", help="folder of the results")
    images = parser.add_argument_group("images")
    images.add_argument("--data", required=True, metavar="DIR", help="folder of images, or a run, of which one epoch is taken")
    images.add_argument("--dataset", default="imagefolder", metavar="NAME", help="format of the folder, such as cifar10")
    images.add_argument("--heldout", metavar="DIR", help="images of the same kind that the model never saw (default: those of a run)")
    generations = parser.add_argument_group("generations")
    generations.add_argument(
        "--num-images", type=positive, metavar="N", help=f"generations (default: {PER_IMAGE} per image, at most {MAX_IMAGES:,})"
    )
    generations.add_argument(
        "--outpaint", action="store_true", help="show the model one half of each image in turn, and compare the half that it adds"
    )
    generations.add_argument("--batch-size", type=positive, default=64, metavar="N", help="generations at a time")
    generations.add_argument("--grid", type=positive, default=2, metavar="N", help="tiles per side in which images are compared")
    add_sampler_arguments(parser)
    results = parser.add_argument_group("results")
    results.add_argument(
        "--fail-on", choices=["copied", "whole"], help="exit with code 5 if an image is copied at all, or whole (default: never)"
    )
    add_wandb_run_argument(results)


def run(args: Namespace) -> None:
    """Sample, compare, report."""
    announce(f"Opening {args.model} ...")
    from afterglow import distributed
    from afterglow.analysis.audit import NO_COPY, WHOLE_COPY, heldout_evidence, judge_images, since
    from afterglow.evaluation.audit import (
        audit_captions,
        audit_request,
        audited_set,
        compared_with_each_other,
        evidence_of,
        expected_seconds,
    )
    from afterglow.evaluation.extraction import sample_images
    from afterglow.generations import parts_of
    from afterglow.reports.audit import Audit, audit_text, waiting_text, write_audit

    model, (rank, world_size) = load_model(args.model, lora=args.lora), distributed.rank_and_world_size()
    announce(f"Comparing the images of {args.data} with each other ...")
    images = audited_set(model, args.data, args.dataset, args.heldout)
    own, total = slice(images.count), len(images.names)
    count = args.num_images or min(PER_IMAGE * total, MAX_IMAGES)
    captions = [""] * count if args.outpaint else audit_captions(model, images.captions, count)
    request = audit_request(images, captions, args.grid, distributed.device(), outpaint=args.outpaint)
    clusters, inside = images.clusters, request.tile_clusters
    each_other = compared_with_each_other(request) if total == images.count else None
    states = _states(args.checkpoints, args.model if args.lora is None else str(args.lora))
    sampler = sampler_from(args, model)
    seconds = expected_seconds(model, request, sampler, args.batch_size) * len(states)
    announce(waiting_text(images.captions[own], captions, len(states), seconds))
    tables, collections = [], {}
    for name, source in states.items():
        as_lora = source.endswith(".safetensors")
        model = load_model(args.model if as_lora else source, lora=source if as_lora else None) if len(states) > 1 else model
        folder = collections[name] = args.out / "generations" / name
        plan = sample_images(
            model, request, folder, sampler, seed=args.seed, batch_size=args.batch_size, rank=rank, world_size=world_size,
            metadata={"model": source, "data": args.data, "outpaint": args.outpaint},
        )  # fmt: skip
        parts = parts_of(folder)
        if len(parts) < len(plan.parts(count)):
            return  # another process still works on them; the last one reports
        assert request.gallery is not None and inside is not None
        evidence = evidence_of(parts, request)
        if each_other is None:
            evidence, unseen = heldout_evidence(evidence, clusters, inside, images.count)
        else:
            unseen = each_other
        tables.append(judge_images(evidence, clusters[own], inside[:, own], unseen).assign(checkpoint=name))
    tables[-1]["since"] = since(list(states), [table["verdict"] for table in tables])
    facts = {"Model": args.model, "LoRA": args.lora, "Images": args.data, "Held-out images": total - images.count or None}
    audit = Audit(
        tables, images.names[own], images.captions[own], images.pixels, args.grid, unseen, each_other is None, captions, parts,
        plan.prompts_per_part, facts,
    )  # fmt: skip
    numbers = write_audit(audit, args.out)
    print(f"{audit_text(audit)}\n\n{args.out}: audit.html, audit.parquet")
    log_to_wandb(args.wandb_run, numbers, {}, {keys.AUDIT_TABLE: audit.last.drop(columns=["tiles", "row"])})
    verdicts = tables[-1]["verdict"]
    if args.fail_on and ((verdicts == WHOLE_COPY) if args.fail_on == "whole" else (verdicts != NO_COPY)).any():
        raise SystemExit(FOUND)


def _states(checkpoints: Sequence[str], model: str) -> dict[str, str]:
    """{name: source} of the checkpoints in the order of the last number in their names, then of the model itself."""
    numbers = [re.findall(r"\d+", Path(source).name) for source in checkpoints]
    order = sorted(range(len(checkpoints)), key=lambda place: int(numbers[place][-1])) if all(numbers) else range(len(checkpoints))
    sources = [*(checkpoints[place] for place in order), model]
    names = [Path(source).name.removesuffix(".ckpt").removesuffix(".safetensors") or source for source in sources]
    if len(set(names)) < len(names):
        names = [f"{number + 1}-{name}" for number, name in enumerate(names)]
    return dict(zip(names, sources, strict=True))
