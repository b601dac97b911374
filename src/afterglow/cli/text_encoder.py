"""Make a small causal text encoder with CLIP's architecture and Stable Diffusion's conventions, which a recipe can use frozen.

  afterglow text-encoder --out runs/text-contrastive
  afterglow text-encoder --out runs/text-random --steps 0
  afterglow train --config configs/demo.yaml --model.text runs/text-contrastive

The encoder is trained contrastively with a small image encoder on the captions and images of a dataset; with 0 steps it stays random. It
sees each caption of the dataset equally often, so that plants and phantoms do not differ for it. Padding consists of end tokens, and the
encoder attends to it. The command prints which fraction of the captions have their own image as the nearest.
"""

from argparse import ArgumentParser, Namespace

from afterglow.cli.options import add_folder_training_arguments
from afterglow.cli.parser import announce, count, positive

NUM_RETRIEVED = 512


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    training = add_folder_training_arguments(parser, 16)
    training.add_argument("--length", type=positive, default=16, metavar="L", help="number of tokens, the text_length of the recipe")
    training.add_argument("--steps", type=count, default=1000, metavar="N", help="optimizer steps of 128 pairs; 0: random weights")
    training.add_argument("--seed", type=count, default=0, help="seed of weights and batches")


def run(args: Namespace) -> None:
    """Train the encoder and write it with its tokenizer."""
    announce(f"Reading {args.dataset} ...")
    import torch

    from afterglow.cache import atomic_path
    from afterglow.datasets.sources import load_images
    from afterglow.models.contrastive import ContrastivePair, ContrastiveSchedule, retrieval_accuracy, train_contrastive
    from afterglow.planting.io import check_empty

    check_empty(args.out)
    torch.manual_seed(args.seed)
    pair = ContrastivePair(args.length)
    images = load_images(args.dataset, resolution=args.resolution, data_dir=args.data_dir)
    pixels = torch.from_numpy(images.pixels)
    train_contrastive(pair, images.captions, pixels, ContrastiveSchedule(args.steps), seed=args.seed)
    with atomic_path(args.out) as folder:
        pair.text.model.save_pretrained(folder)
        pair.text.tokenizer.save_pretrained(folder)
    some = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(args.seed))[:NUM_RETRIEVED]
    accuracy = retrieval_accuracy(pair, [images.captions[row] for row in some.tolist()], pixels[some])
    print(f"{args.out}: {args.steps} steps on {len(pixels)} captions and images")
    print(f"{accuracy:.3f} of {len(some)} of these captions have their own image as the nearest (chance: {1 / len(some):.4f})")
