"""Options that several commands share, and the values that they stand for."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterglow.cli.parser import count, positive
from afterglow.errors import AfterglowError

if TYPE_CHECKING:
    from afterglow.models.denoiser import Denoiser
    from afterglow.sampling.loop import Sampler

MODEL = "run folder, checkpoint, diffusers folder, hub id, or optimal:RUN for the closed-form optimal denoiser of a run's training set"
DATASETS = "openmoji, imagefolder, cifar10, celeba, flowers102 or fashion_mnist"
IMAGE_FILES = ("png", "svg")
PRINTED = 10  # detectors or maps in each table of the terminal, of often more than a hundred


def add_dataset_arguments(group: Any, purpose: str, default: str | None = None) -> None:
    """Add --dataset and --data-dir to an argument group."""
    group.add_argument(
        "--dataset", default=default, metavar="NAME", help=f"{purpose}: {DATASETS}" + (" (default: none)" * (default is None))
    )
    group.add_argument("--data-dir", metavar="DIR", help="folder of the dataset (default: none, openmoji needs no folder)")


def add_set_size_argument(group: Any) -> None:
    """Add --set-size to an argument group that has --dataset."""
    group.add_argument(
        "--set-size",
        type=positive,
        metavar="N",
        help="with --dataset: use the first N images in the training's seeded order (default: all)",
    )


def add_planted_arguments(parser: Any, condition: str = "") -> None:
    """Add the plants of a run that a model is asked for, and the number of generations of each, to a parser or a group of options."""
    parser.add_argument(
        "--plants",
        type=positive,
        metavar="N",
        help=f"{condition}at most N plants of each kind, and N phantoms of whole images and N of regions (default: all)",
    )
    parser.add_argument("--num-images", type=positive, default=4, metavar="N", help="generations of each caption")


def add_generation_arguments(parser: ArgumentParser, command: str) -> None:
    """Add the output of a command that keeps generations and writes COMMAND.parquet, and the size of its batches."""
    output = parser.add_argument_group("execution and output")
    output.add_argument("--out", type=Path, default=Path(command), metavar="DIR", help=f"folder of generations and {command}.parquet")
    output.add_argument("--batch-size", type=positive, default=32, metavar="N", help="generations at a time")


def add_sampler_arguments(parser: ArgumentParser) -> None:
    """Add the argument group that configures the sampler."""
    group = parser.add_argument_group("sampling")
    group.add_argument("--num-inference-steps", type=positive, default=50, metavar="N", help="sampler steps")
    group.add_argument(
        "--scheduler",
        metavar="CLASS",
        help="class name of a diffusers scheduler (default: DDIMScheduler; of a flow-matching model FlowMatchEulerDiscreteScheduler)",
    )
    group.add_argument(
        "--timestep-spacing",
        choices=["trailing", "leading", "linspace"],
        help="spacing of the timesteps (default: the pipeline's own for Stable Diffusion, otherwise trailing)",
    )
    group.add_argument(
        "--guidance-scale", type=float, metavar="W", help="classifier-free guidance scale (default: 7.5 for Stable Diffusion, otherwise 1)"
    )
    group.add_argument("--seed", type=count, default=0, help="first seed")


def sampler_from(args: Namespace, model: "Denoiser") -> "Sampler":
    """Return the sampler that the options describe."""
    from afterglow.evaluation.evaluate import build_sampler

    return build_sampler(
        model,
        scheduler=args.scheduler,
        steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        spacing=args.timestep_spacing,
    )


def training_seeds(seeds: Sequence[int] | None, runs: Sequence[str]) -> dict[str, int]:
    """{run: training seed} of --seeds, which names one for each run, in order; empty without the option."""
    if seeds and len(seeds) != len(runs):
        raise AfterglowError(f"--seeds names {len(seeds)} training seeds for {len(runs)} runs: give one for each.")
    return dict(zip(runs, seeds, strict=True)) if seeds else {}


def add_sscd_arguments(group: Any) -> None:
    """Add --sscd and --sscd-transform to an argument group."""
    group.add_argument("--sscd", metavar="FILE", help="SSCD's TorchScript file, or 'immaculate' for the optional package (default: none)")
    group.add_argument(
        "--sscd-transform", choices=["resize_288", "skew_320", "crop_224"], default="skew_320", help="how SSCD resizes its input"
    )


def add_wandb_run_argument(group: Any) -> None:
    """Add --wandb-run to an argument group."""
    group.add_argument("--wandb-run", type=Path, metavar="RUN", help="run folder whose W&B run also receives the results (default: none)")


def log_to_wandb(run: Path | None, numbers: Mapping[str, float], images: Mapping[str, Path], tables: Mapping[str, Any] = {}) -> None:  # noqa: B006
    """Log numbers, tables and those figures that exist to the W&B run of a run folder, if one is given."""
    if run is not None:
        from afterglow.loggers.finished import log_analysis

        print(log_analysis(run, numbers, {name: path for name, path in images.items() if path.exists()}, tables))


def load_model(source: str, **options: Any) -> "Denoiser":
    """Open a model on this process's device, in the precision of the launcher."""
    from afterglow import distributed
    from afterglow.models import io

    return io.open_model(source, **options).to(distributed.device(), distributed.dtype())


def add_folder_training_arguments(parser: ArgumentParser, resolution: int) -> Any:
    """Define the options of a command that trains on a dataset and writes a folder; return the group of the training."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; it must be empty or new")
    data = parser.add_argument_group("data")
    add_dataset_arguments(data, "dataset to train on", "openmoji")
    data.add_argument("--resolution", type=positive, default=resolution, metavar="PIXELS", help="side of the images")
    return parser.add_argument_group("training")
