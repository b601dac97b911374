"""Train a diffusion model on a set with plants and measure during training which of them it memorizes.

  afterglow train                                               the demo: OpenMoji at 16 pixels, about 15 minutes on two cores
  afterglow train --config configs/cifar10_small.yaml --data.data_dir DIR --name first
  afterglow train --name first --ckpt_path last                 resume a run
  accelerate launch --multi_gpu --num_processes 2 train.py      the demo on two processes

A run is one recipe (--config configs/RECIPE.yaml), any number of overlays (--config configs/overlays/NAME.yaml) and single values
(--optimizer.learning_rate 1e-3, --data.planting.copies 8, --trainer.max_steps 4000, --wandb.project NAME). Its files are in runs/NAME.

  --dry-run               build everything, run a few steps, and print memory, time per step and the expected total
  --print_config          print the resolved configuration, with the values of the recipe, and exit
  --trainer.help          list all options of Lightning's Trainer
  --model.help CLASS      list the options of another model, such as StableDiffusion
"""

import sys
from collections.abc import Sequence

from afterglow.cli.parser import announce
from afterglow.distributed import is_main_process, trainer_defaults
from afterglow.signals import Stopped, StopSignals


def main(arguments: Sequence[str]) -> None:
    """Train as the arguments describe.

    Args:
        arguments: the command line; without a --config the demo is trained.

    Raises:
        AfterglowError: bad input.
        SystemExit: after --help, --print_config and a signal.
    """
    trainer_defaults()  # a launcher that is not supported is refused before the libraries are loaded
    announce("Loading PyTorch, Lightning and diffusers ...")
    signals = StopSignals()
    try:
        with signals.handled():
            from afterglow.cli.lightning_cli import train

            train(list(arguments), __doc__, signals)
    except Stopped as stop:
        if is_main_process():
            print(f"Stopped by {stop} {signals.state}.", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
