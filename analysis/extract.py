"""Generate many images and find which training images are among them, whole or in a tile. It goes on where it was killed.

  python analysis/extract.py --model runs/demo --planted runs/demo --num-images 1024 --out extraction/demo
  python analysis/extract.py --model google/ddpm-cifar10-32 --source cifar10 --folder DIR --num-images 10000 --out extraction/cifar10
  accelerate launch --multi_gpu --num_processes 2 analysis/extract.py --model runs/a --planted runs/b --out extraction/other_half

--model is a run folder, a checkpoint, a diffusers folder or a hub id; optimal:RUN is the closed-form optimal denoiser of what a run is
trained on, the positive control. It is judged against what a run was trained on (--planted, which may be another run), or against a
source at the size of the model's images. The last of several processes writes the summary.
"""

import argparse
from pathlib import Path

from afterglow import distributed
from afterglow.cli.extraction_run import summarize
from afterglow.cli.options import sampler_of, sampler_options
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.evaluation.extraction import extraction_captions, extraction_request, similarity_space
from afterglow.evaluation.plan import GenerationPlan
from afterglow.evaluation.requests import copyable_targets, training_set
from afterglow.evaluation.store import collect
from afterglow.loggers.run_logger import log_analysis
from afterglow.models.io import open_model
from afterglow.sampling.recorder import CaptureConfig


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="run folder, checkpoint, diffusers folder or hub id")
    add("--planted", type=Path, help="run folder: judge against what it was trained on")
    add("--source", help="judge against a source instead: cifar10, celeba, flowers102, fashion_mnist, openmoji, imagefolder")
    add("--folder", help="where the source lies")
    add("--set-size", type=int, help="of a source: its first images in the seeded order of trainings; default: all")
    add("--out", type=Path, required=True, help="the folder of the extraction")
    add("--num-images", type=int, default=1024, help="generations")
    add("--caption", nargs="+", default=[], help="ask for these in turn; default: for the training captions in turn")
    sampler_options(parser)
    add("--seed", type=int, default=0, help="of the first generation; the next has the next")
    add("--tiles", type=int, default=2, help="a side: 2 looks for copies in quarters, 4 in sixteenths, 1 in whole images only")
    add("--sscd", help="measure similarity by SSCD: its TorchScript file, or 'immaculate' for the package; default: in pixels")
    add("--sscd-transform", default="skew_320", help="resize_288, skew_320 or crop_224")
    add("--tokens", help="measure similarity by the mean patch token of a vision transformer: its folder")
    add("--background", type=int, default=10_000, help="training images that are compared with the training set")
    add("--batch-size", type=int, default=256, help="generations at a time, and in a part: what a kill can cost")
    add("--run", type=Path, help="run folder whose W&B run gets the numbers and figures too")
    return parser


def main() -> None:
    """Generate, judge, summarize."""
    args = options().parse_args()
    configure_logging()
    with exit_on_user_error():
        model = open_model(args.model).to(distributed.device(), distributed.dtype())
        planted = training_set(model, planted=args.planted, source=args.source, folder=args.folder, set_size=args.set_size)
        captions = extraction_captions(model, planted, args.num_images, args.caption)
        gallery, (rank, world_size) = planted.gallery(distributed.device()), distributed.share()
        space = similarity_space(
            gallery, sscd_file=args.sscd, sscd_transform=args.sscd_transform, tokens=args.tokens, rank=rank, world_size=world_size
        )
        plants = copyable_targets(planted)
        request = extraction_request(captions, gallery, space, args.tiles, plants)
        plan = GenerationPlan(num_images=1, seed=args.seed, seed_rule="prompt", prompts_per_part=args.batch_size)
        metadata = {"model": args.model, "judged against": str(args.planted or args.source), "set size": args.set_size, **request.metadata}
        capture = CaptureConfig(guidance=False, tokens=False, end_steps=())
        collect(
            model, request, plan, args.out, sampler_of(model, args), capture,
            rank=rank, world_size=world_size, metadata=metadata, batch_size=args.batch_size,
        )  # fmt: skip
        numbers = summarize(args.out, plan, args.num_images, gallery, space, metadata, args.background, plants)
        if numbers is not None and args.run:
            images = {f"media/{name}": args.out / f"{name}.png" for name in ("extracted", "histograms")}
            print(log_analysis(args.run, numbers, images))


if __name__ == "__main__":
    main()
