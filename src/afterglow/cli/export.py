"""Write the model of a checkpoint as a diffusers folder. The folder opens without Afterglow.

  afterglow export runs/demo --out exported
  afterglow export runs/demo/checkpoints/last.ckpt --out exported_raw --no-ema

A model without captions opens with `DDPMPipeline.from_pretrained(DIR)`, or `DDIMPipeline.from_pretrained(DIR)` for fewer steps.
A model with captions needs its pipeline's code, which is written to DIR/pipeline.py:

  pipeline = DiffusionPipeline.from_pretrained(DIR, custom_pipeline=DIR, trust_remote_code=True)
  pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
  pipeline(["a cat"], num_inference_steps=25, generator=torch.Generator().manual_seed(0)).images[0]
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from afterglow.cli.parser import announce


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("checkpoint", help="checkpoint, or run folder (its last checkpoint is exported)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; it must be empty or new")
    parser.add_argument("--no-ema", action="store_true", help="export the trained weights instead of their moving average")
    parser.add_argument(
        "--wandb", action="store_true", help="log the folder to the run's W&B run, as an artifact made from its planted set"
    )


def run(args: Namespace) -> None:
    """Export the model."""
    source = Path(args.checkpoint)
    announce(f"Opening {args.checkpoint} ...")
    from afterglow.errors import AfterglowError
    from afterglow.models.io import export, load_denoiser
    from afterglow.models.text_ddpm_pipeline import TextConditionalPipeline

    run = next((path for path in (source, *source.resolve().parents[:2]) if (path / "config.yaml").is_file()), None)
    if args.wandb and run is None:
        raise AfterglowError(f"--wandb: '{source}' belongs to no run folder: config.yaml is missing.")
    model = load_denoiser(args.checkpoint, raw=args.no_ema)
    folder = export(model, args.out)
    weights = "raw weights" if args.no_ema else "averaged weights if the training averaged them"
    pipeline = type(model.pipeline()).__name__
    print(f"{folder}: {type(model).__name__}, {weights}, as {pipeline}")
    code = f", custom_pipeline='{folder}', trust_remote_code=True" if pipeline == TextConditionalPipeline.__name__ else ""
    print(f"Open it with DiffusionPipeline.from_pretrained('{folder}'{code}).")
    if run is not None and args.wandb:
        from afterglow.loggers.finished import log_pipeline

        print(log_pipeline(Path(folder), run))
