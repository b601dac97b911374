"""Write the model of a checkpoint as a diffusers folder, which opens where Afterglow is not installed.

  python train/export.py runs/demo --out exported
  python train/export.py runs/demo/checkpoints/last.ckpt --out exported_raw --raw

A model without text opens with `DDPMPipeline.from_pretrained(DIR)`, or `DDIMPipeline.from_pretrained(DIR)` for fewer steps.
A model with captions brings its pipeline along, which is code, in DIR/pipeline.py:

  pipeline = DiffusionPipeline.from_pretrained(DIR, custom_pipeline=DIR, trust_remote_code=True)
  pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
  pipeline(["a cat"], num_inference_steps=25, generator=torch.Generator().manual_seed(0)).images[0]
"""

import argparse

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.models.io import export, load_denoiser
from afterglow.models.text_ddpm_pipeline import TextConditionalPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint, or a run folder for its last one")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write; it must be empty or new")
    parser.add_argument("--raw", action="store_true", help="the weights as they were trained, not their average")
    args = parser.parse_args()
    configure_logging()
    with exit_on_user_error():
        model = load_denoiser(args.checkpoint, raw=args.raw)
        folder = export(model, args.out)
        weights = "raw weights" if args.raw else "averaged weights, where the training averaged"
        pipeline = type(model.pipeline()).__name__
        print(f"{folder}: {type(model).__name__}, {weights}, as {pipeline}")
        code = f", custom_pipeline='{folder}', trust_remote_code=True" if pipeline == TextConditionalPipeline.__name__ else ""
        print(f"It opens with DiffusionPipeline.from_pretrained('{folder}'{code}).")


if __name__ == "__main__":
    main()
