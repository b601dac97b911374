"""Find which of your images a model copies, whole or in part, and since which checkpoint. Nothing needs to be planted.

  afterglow audit --model my-ddpm --data photos
  afterglow audit --model stable-diffusion --lora mine.safetensors --data photos --heldout more-photos --guidance-scale 7.5
  afterglow audit --model runs/mine --data photos --checkpoints runs/mine/checkpoints/step=*.ckpt --fail-on copied

The model is sampled with the captions of the images, without any where they have none. Every generation is compared with every image,
whole and in regions. The limits of both comparisons come from images that the model never saw (--heldout, or those that a run held out);
without any, each of the images takes their place and is compared with all others. An interrupted audit resumes.

The results are audit.html, a page with all copies; audit.parquet; and a table in the terminal. Exit codes: 0; 2 for bad input; 5 if
--fail-on finds what it names.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING

from afterglow import keys
from afterglow.cli.options import MODEL, add_sampler_arguments, add_wandb_run_argument, load_model, log_to_wandb, sampler_from
from afterglow.cli.parser import announce, positive

if TYPE_CHECKING:
    from afterglow.models.denoiser import Denoiser

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
    images.add_argument(
        "--data", required=True, metavar="DIR", help="folder of images, or a run folder: the images of one epoch of its training"
    )
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
    from afterglow.analysis.audit import NO_COPY, WHOLE_COPY
    from afterglow.evaluation.audit import audit_captions, audit_request
    from afterglow.evaluation.audit_checkpoints import audit_checkpoints, expected_seconds
    from afterglow.evaluation.audited_set import audited_set, clustered
    from afterglow.evaluation.caption_gain import caption_gain
    from afterglow.reports.audit import audit_text, waiting_text, write_audit

    model, (rank, world_size) = load_model(args.model, lora=args.lora), distributed.rank_and_world_size()
    images, sampler = audited_set(model, args.data, args.dataset, args.heldout), sampler_from(args, model)
    states = _states(args.checkpoints, args.model if args.lora is None else str(args.lora))
    count = args.num_images or min(PER_IMAGE * len(images.names), MAX_IMAGES)
    captions = [""] * count if args.outpaint else audit_captions(model, images.captions, count)
    clustering, seconds = expected_seconds(model, images, captions, sampler, args.batch_size, outpaint=args.outpaint)
    announce(waiting_text(images.captions[: images.count], captions, len(states), clustering + len(states) * seconds))
    images = clustered(images)
    request = audit_request(model, images, captions, outpaint=args.outpaint)
    result = audit_checkpoints(
        _opened(states, args.model, model), request, images, args.out / "generations", sampler, seed=args.seed,
        batch_size=args.batch_size, rank=rank, world_size=world_size,
        settings={"model": args.model, "LoRA": str(args.lora or ""), "images": args.data, "outpaint": args.outpaint},
    )  # fmt: skip
    if result is None:
        return  # another process still works on the generations; the last one reports
    if any(captions) and (gain := caption_gain(model, images, args.batch_size)):
        result = replace(result, facts=replace(result.facts, caption_gain=astuple(gain)))
    numbers = write_audit(result, args.out)
    print(f"{audit_text(result)}\n\n{args.out}: audit.html, audit.parquet")
    log_to_wandb(args.wandb_run, numbers, {}, {keys.AUDIT_TABLE: result.last.drop(columns="cells")})
    verdicts = result.last["verdict"]
    if args.fail_on and ((verdicts == WHOLE_COPY) if args.fail_on == "whole" else (verdicts != NO_COPY)).any():
        raise SystemExit(FOUND)


def _opened(states: Mapping[str, str], base: str, last: "Denoiser") -> "Iterator[tuple[str, Denoiser]]":
    """Name and model of each checkpoint; a LoRA is merged into the base. `last` is that of the last one."""
    for place, (name, source) in enumerate(states.items(), start=1):
        as_lora = source.endswith(".safetensors")
        yield name, last if place == len(states) else load_model(base if as_lora else source, lora=source if as_lora else None)


def _states(checkpoints: Sequence[str], model: str) -> dict[str, str]:
    """{name: source} of the checkpoints in the order of the last number in their names, then of the model itself."""
    numbers = [re.findall(r"\d+", Path(source).name) for source in checkpoints]
    order = sorted(range(len(checkpoints)), key=lambda place: int(numbers[place][-1])) if all(numbers) else range(len(checkpoints))
    sources = [*(checkpoints[place] for place in order), model]
    names = [Path(source).name.removesuffix(".ckpt").removesuffix(".safetensors") or source for source in sources]
    if len(set(names)) < len(names):
        names = [f"{number + 1}-{name}" for number, name in enumerate(names)]
    return dict(zip(names, sources, strict=True))
