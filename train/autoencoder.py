"""Make a small model of Stable Diffusion's structure that can be fine-tuned on a CPU: train its autoencoder, write the pipeline.

  python train/autoencoder.py --out small_sd
  python train/autoencoder.py --out small_cifar --source cifar10 --folder DIR --minutes 5
  accelerate launch train.py --config configs/sd14_memorize.yaml --config configs/overlays/small_sd.yaml --model.source small_sd

All widths of U-Net, autoencoder and text encoder are Stable Diffusion v1-4's divided by one number. Only the autoencoder is trained here;
U-Net and text encoder stay random. The round-trip error is that of pictures held out of this training (whole groups of near twins), beside
the trivial code: the mean colour of each block of 8 by 8 pixels.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from afterglow.data.folder_format import check_empty
from afterglow.data.neighbours import group_pictures
from afterglow.data.sources import load_pictures
from afterglow.models.autoencoder import Schedule, block_errors, round_trip_errors, train_autoencoder
from afterglow.models.sd_shape import sd_autoencoder, sd_pipeline
from afterglow.sentences import quiet, sentences

HELD_OUT = 0.1  # share of the groups
NUM_JUDGED = 512


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write; it must be empty or new")
    add("--source", default="openmoji", help="of the pictures, as in a training")
    add("--folder", help="where the source lies")
    add("--resolution", type=int, default=64, help="side of the pictures, in pixels")
    add("--divide", type=int, default=8, help="what all widths are divided by: 1, 2, 4, 8")
    add("--minutes", type=float, default=10.0, help="at most so long")
    add("--steps", type=int, default=4000, help="at most so many steps of 4 pictures")
    add("--seed", type=int, default=0, help="of weights, batches and the held-out groups")
    return parser


def main() -> None:
    args = options().parse_args()
    quiet()
    with sentences():
        check_empty(args.out)
        torch.manual_seed(args.seed)
        vae = sd_autoencoder(args.divide, args.resolution)
        pictures = load_pictures(args.source, resolution=args.resolution, folder=args.folder)
        groups = group_pictures(pictures.pixels, pictures.families)
        shuffled = np.random.default_rng([args.seed, 0xAE]).permutation(groups.max() + 1)
        held_out = np.isin(groups, shuffled[: max(1, round(HELD_OUT * len(shuffled)))])
        kept, others = torch.from_numpy(pictures.pixels[~held_out]), torch.from_numpy(pictures.pixels[held_out][:NUM_JUDGED])
        steps = train_autoencoder(vae, kept, Schedule(args.minutes, args.steps), seed=args.seed)
        errors, trivial = round_trip_errors(vae, others), block_errors(others)
        sd_pipeline(args.divide, args.resolution, vae).save_pretrained(args.out)
        about = f"RMS {errors.mean():.3f}, 95 % under {errors.quantile(0.95):.3f}, of [0,1] pixels (block means: {trivial.mean():.3f})"
        print(f"{args.out}: {steps} steps on {len(kept)} pictures\nround-trip error of {len(others)} held-out pictures: {about}")


if __name__ == "__main__":
    main()
