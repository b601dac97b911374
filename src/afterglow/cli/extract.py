"""Generate many samples and find the training images among them, whole or in a tile. An interrupted extraction resumes.

  afterglow extract --model runs/demo --run runs/demo --num-images 1024 --out extraction/demo
  afterglow extract --model google/ddpm-cifar10-32 --dataset cifar10 --data-dir DIR --num-images 10000 --out extraction/cifar10
  accelerate launch --multi_gpu --num_processes 2 analysis/extract.py --model runs/a --run runs/b --out extraction/other_arm

Every count is printed with that of the same test on real images that the model never saw: the held-out images of the run, the images of the
dataset beyond --set-size, or the images of a folder (--heldout).

Generations are compared with the training set of a run (--run, which may be another run than the model's) or with a dataset at the size
of the model's images. --model optimal:RUN is the positive control. The last of several processes writes the summary.
`afterglow audit` shows the images that are copied.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterglow import keys
from afterglow.cli.options import (
    MODEL,
    add_dataset_arguments,
    add_sampler_arguments,
    add_set_size_argument,
    add_sscd_arguments,
    add_wandb_run_argument,
    load_model,
    log_to_wandb,
    sampler_from,
)
from afterglow.cli.parser import announce, count, positive

if TYPE_CHECKING:
    import numpy as np

    from afterglow.evaluation.extraction import ExtractionRequest
    from afterglow.evaluation.requests import GenerationPlan


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the extraction")
    training = parser.add_argument_group("training set")
    training.add_argument("--run", type=Path, help="run folder: compare with what it was trained on (default: none)")
    add_dataset_arguments(training, "compare with a dataset instead")
    add_set_size_argument(training)
    add_sampler_arguments(parser)
    _add_generations(parser)
    _add_comparison(parser)


def _add_generations(parser: ArgumentParser) -> None:
    generations = parser.add_argument_group("generations")
    generations.add_argument("--num-images", type=positive, default=1024, metavar="N", help="number of generations")
    generations.add_argument(
        "--caption", nargs="+", default=[], metavar="TEXT", help="captions to sample in turn (default: the training captions in turn)"
    )
    generations.add_argument(
        "--batch-size",
        type=positive,
        default=256,
        metavar="N",
        help="generations at a time and in a part; an interruption loses at most one part",
    )


def _add_comparison(parser: ArgumentParser) -> None:
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument(
        "--grid",
        type=positive,
        default=2,
        metavar="N",
        help="tiles per side: 2 finds copies of quarters, 4 of sixteenths, 1 of whole images",
    )
    comparison.add_argument(
        "--heldout", metavar="DIR", help="images that the model never saw (default: those held out of the run or left by --set-size)"
    )
    add_sscd_arguments(comparison)
    comparison.add_argument("--vit", metavar="DIR", help="vision transformer whose mean patch token measures similarity (default: pixels)")
    comparison.add_argument(
        "--background", type=count, default=10_000, metavar="N", help="training images that are compared with the training set"
    )
    add_wandb_run_argument(comparison)


def run(args: Namespace) -> None:
    """Generate, compare, summarize."""
    announce(f"Opening {args.model} ...")
    from afterglow import distributed
    from afterglow.evaluation.build_requests import copyable_targets
    from afterglow.evaluation.extraction import extraction_captions, extraction_request, sample_images, unseen_images
    from afterglow.evaluation.similarity import similarity_space
    from afterglow.evaluation.training_set import training_set

    model, (rank, world_size) = load_model(args.model), distributed.rank_and_world_size()
    planted = training_set(model, planted=args.run, source=args.dataset, folder=args.data_dir, set_size=args.set_size)
    captions = extraction_captions(model, planted, args.num_images, args.caption)
    gallery = planted.gallery(distributed.device())
    space = similarity_space(
        gallery, sscd_file=args.sscd, sscd_transform=args.sscd_transform, tokens=args.vit, rank=rank, world_size=world_size
    )
    plants = copyable_targets(planted)
    request = extraction_request(captions, gallery, space, args.grid, plants)
    settings = {"model": args.model, "compared with": str(args.run or args.dataset), "set size": args.set_size, **request.metadata}
    plan = sample_images(
        model, request, args.out, sampler_from(args, model), seed=args.seed, batch_size=args.batch_size, rank=rank, world_size=world_size,
        metadata=settings,
    )  # fmt: skip
    unseen = unseen_images(model, planted, args.heldout)
    numbers = summarize(Extraction(args.out, plan, args.num_images, request, unseen), settings, args.background)
    if numbers is not None:
        log_to_wandb(args.wandb_run, numbers, {"media/histograms": args.out / "histograms.png"})


@dataclass(frozen=True)
class Extraction:
    """A collection of generations, what they are compared with, and real images that the model never saw, uint8 [N, C, H, W]."""

    folder: Path
    plan: "GenerationPlan"
    num_images: int
    request: "ExtractionRequest"
    unseen: "np.ndarray"


def summarize(extraction: Extraction, settings: Mapping[str, Any], num_background: int) -> dict[str, float] | None:
    """Write table, figures and summary of a finished extraction.

    Args:
        extraction: the collection.
        settings: settings to print.
        num_background: training images whose similarity to the rest of the set is drawn beside that of the generations.

    Returns:
        numbers for W&B; None if parts are missing because other processes still work on them (the last process writes).
    """
    from afterglow.analysis.extraction import fractions, tile_limit, write_generations
    from afterglow.evaluation.extraction import extracted_plants, unseen_rows
    from afterglow.evaluation.similarity import background_similarity
    from afterglow.generations import parts_of
    from afterglow.reports.extraction import extraction_text, histograms_figure

    out, parts = extraction.folder, parts_of(extraction.folder)
    if len(parts) < len(extraction.plan.parts(extraction.num_images)):
        return None
    table = write_generations(parts, out / "extract.parquet", extraction.request.gallery.names)
    space, plants = extraction.request.space, extraction.request.plants
    assert space is not None
    training = background_similarity(space, num_background)
    kinds = {plant.plant_id: plant.kind for plant in plants}
    unseen, duplicates = unseen_rows(extraction.unseen, extraction.request)
    unseen.to_parquet(out / "unseen.parquet", index=False)
    result = fractions(table, training, kinds, unseen)
    if plants:
        extracted_plants(table, plants).to_parquet(out / "plants.parquet", index=False)
    histograms_figure(table, training, space.name, out / "histograms.png", tile_limit(unseen))
    text = extraction_text(result, table, training, {**settings, "near-duplicates of training left out of the unseen images": duplicates})
    (out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\n{out}: extract.parquet, unseen.parquet, summary.txt, histograms.png")
    numbers = {}
    for part in result:
        numbers[keys.extraction(part.key)] = part.count / part.total
        if part.distinct is not None:
            numbers[keys.extraction(f"{part.key}_distinct")] = float(part.distinct)
        if part.unseen is not None:
            numbers[keys.extraction(f"{part.key}_unseen")] = part.unseen[0] / part.unseen[1]
    return numbers
