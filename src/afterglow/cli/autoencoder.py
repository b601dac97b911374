"""Make a small model with Stable Diffusion's structure that can be fine-tuned on a CPU: train its autoencoder, write the pipeline.

  afterglow autoencoder --out small_sd
  afterglow autoencoder --out small_cifar --dataset cifar10 --data-dir DIR --minutes 5
  python train.py --config configs/sd14_memorize.yaml --config configs/overlays/small_sd.yaml --model.source small_sd

The widths of U-Net, autoencoder and text encoder are those of Stable Diffusion v1-4 divided by one number. Only the autoencoder is
trained; U-Net and text encoder stay random. The printed reconstruction error is that of held-out images (whole clusters of
near-duplicates). It is printed next to the error of a trivial code: the mean color of each block of 8 by 8 pixels.
"""

from argparse import ArgumentParser, Namespace

from afterglow.cli.options import add_folder_training_arguments
from afterglow.cli.parser import announce, count, finite, positive

HELD_OUT = 0.1  # fraction of the clusters
NUM_EVALUATED = 512


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    training = add_folder_training_arguments(parser, 64)
    training.add_argument("--width-divisor", type=int, choices=[1, 2, 4, 8], default=8, help="divisor of all widths")
    training.add_argument("--minutes", type=finite, default=10.0, help="maximum duration")
    training.add_argument("--steps", type=positive, default=4000, metavar="N", help="maximum number of optimizer steps of 4 images")
    training.add_argument("--seed", type=count, default=0, help="seed of weights, batches and held-out clusters")


def run(args: Namespace) -> None:
    """Train the autoencoder and write the pipeline."""
    announce(f"Reading {args.dataset} ...")
    import numpy as np
    import torch

    from afterglow.datasets.sources import load_images
    from afterglow.models.autoencoder import Schedule, block_errors, reconstruction_errors, train_autoencoder
    from afterglow.neighbors.clusters import cluster_images
    from afterglow.planting.io import check_empty
    from afterglow.testing.tiny_sd import sd_autoencoder, sd_pipeline

    check_empty(args.out)
    torch.manual_seed(args.seed)
    vae = sd_autoencoder(args.width_divisor, args.resolution)
    images = load_images(args.dataset, resolution=args.resolution, data_dir=args.data_dir)
    clusters = cluster_images(images.pixels, images.families)
    shuffled = np.random.default_rng([args.seed, 0xAE]).permutation(clusters.max() + 1)
    held_out = np.isin(clusters, shuffled[: max(1, round(HELD_OUT * len(shuffled)))])
    train, test = torch.from_numpy(images.pixels[~held_out]), torch.from_numpy(images.pixels[held_out][:NUM_EVALUATED])
    steps = train_autoencoder(vae, train, Schedule(args.minutes, args.steps), seed=args.seed)
    errors, trivial = reconstruction_errors(vae, test), block_errors(test)
    sd_pipeline(args.width_divisor, args.resolution, vae).save_pretrained(args.out)
    print(f"{args.out}: {steps} steps on {len(train)} images")
    print(
        f"Reconstruction error of {len(test)} held-out images: RMS {errors.mean():.3f}, 95 % under {errors.quantile(0.95):.3f}, "
        f"of [0,1] pixels (block means: {trivial.mean():.3f})"
    )
