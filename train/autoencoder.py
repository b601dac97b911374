"""Make a small model of Stable Diffusion's structure that can be fine-tuned on a CPU: train its autoencoder, write the pipeline.

  python train/autoencoder.py --out small_sd
  python train/autoencoder.py --out small_cifar --source cifar10 --folder DIR --minutes 5
  accelerate launch train.py --config configs/sd14_memorize.yaml --config configs/overlays/small_sd.yaml --model.source small_sd

All widths of U-Net, autoencoder and text encoder are Stable Diffusion v1-4's divided by one number. Only the autoencoder is trained here;
U-Net and text encoder stay random. The round-trip error is that of images held out of this training (whole groups of near twins), beside
the trivial code: the mean color of each block of 8 by 8 pixels.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from afterglow.datasets.sources import load_images
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.models.autoencoder import Schedule, block_errors, reconstruction_errors, train_autoencoder
from afterglow.neighbors.clusters import cluster_images
from afterglow.planting.io import check_empty
from afterglow.testing.tiny_sd import sd_autoencoder, sd_pipeline

HELD_OUT = 0.1  # share of the groups
NUM_JUDGED = 512


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write; it must be empty or new")
    add("--source", default="openmoji", help="of the images, as in a training")
    add("--folder", help="where the source lies")
    add("--resolution", type=int, default=64, help="side of the images, in pixels")
    add("--divide", type=int, default=8, help="what all widths are divided by: 1, 2, 4, 8")
    add("--minutes", type=float, default=10.0, help="at most so long")
    add("--steps", type=int, default=4000, help="at most so many steps of 4 images")
    add("--seed", type=int, default=0, help="of weights, batches and the held-out groups")
    return parser


def main() -> None:
    args = options().parse_args()
    configure_logging()
    with exit_on_user_error():
        check_empty(args.out)
        torch.manual_seed(args.seed)
        vae = sd_autoencoder(args.divide, args.resolution)
        images = load_images(args.source, resolution=args.resolution, data_dir=args.folder)
        clusters = cluster_images(images.pixels, images.families)
        shuffled = np.random.default_rng([args.seed, 0xAE]).permutation(clusters.max() + 1)
        held_out = np.isin(clusters, shuffled[: max(1, round(HELD_OUT * len(shuffled)))])
        kept, others = torch.from_numpy(images.pixels[~held_out]), torch.from_numpy(images.pixels[held_out][:NUM_JUDGED])
        steps = train_autoencoder(vae, kept, Schedule(args.minutes, args.steps), seed=args.seed)
        errors, trivial = reconstruction_errors(vae, others), block_errors(others)
        sd_pipeline(args.divide, args.resolution, vae).save_pretrained(args.out)
        about = f"RMS {errors.mean():.3f}, 95 % under {errors.quantile(0.95):.3f}, of [0,1] pixels (block means: {trivial.mean():.3f})"
        print(f"{args.out}: {steps} steps on {len(kept)} images\nround-trip error of {len(others)} held-out images: {about}")


if __name__ == "__main__":
    main()
