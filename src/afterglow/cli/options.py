"""Options that several commands share."""

from argparse import ArgumentParser, Namespace

from afterglow.evaluation.evaluate import build_sampler
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import Sampler


def sampler_options(parser: ArgumentParser) -> None:
    """Add the options of the sampler."""
    parser.add_argument("--steps", type=int, default=50, help="sampler steps")
    parser.add_argument("--scheduler", default="DDIMScheduler", help="class name of a diffusers scheduler")
    parser.add_argument("--spacing", help="timestep spacing: trailing, leading or linspace; default: Stable Diffusion's own, else trailing")
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance scale: 1 for models trained here, 7.5 for Stable Diffusion")


def sampler_of(model: Denoiser, args: Namespace) -> Sampler:
    """The sampler that these options name."""
    return build_sampler(model, scheduler=args.scheduler, steps=args.steps, guidance_scale=args.guidance, spacing=args.spacing)
