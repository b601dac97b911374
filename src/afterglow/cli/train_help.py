"""The text of `afterglow train --help`: every option of ours with the value of the recipe, and few of Lightning's."""

from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, dict_to_namespace
from lightning.pytorch.cli import LightningArgumentParser

from afterglow import models
from afterglow.cli.recipes import RecipeHelp, config_file, option_values
from afterglow.files import read_yaml
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.datamodule import PlantedDataModule

TRAINER_HELP = "--trainer.help"
OPTION_HELP = {
    "trainer.max_steps": "number of optimizer steps",
    "trainer.log_every_n_steps": "optimizer steps between two values of the loss in W&B",
    "trainer.accelerator": "cpu, gpu, or auto: a GPU where there is one",
    "trainer.accumulate_grad_batches": "batches whose gradients are added before an optimizer step",
    "trainer.gradient_clip_val": "largest norm of the gradient, which is scaled down to it; null: any",
    "seed_everything": "seed of the planting, the order of the samples, the noise and the weights",
    "config": "a recipe, or an overlay over the recipes before it (YAML)",
    "print_config": "print the resolved configuration, with the values of the recipe, and exit",
}
GROUP_TITLES = {"Customize every aspect of training via flags": f"Lightning's Trainer ({TRAINER_HELP} lists its other options)"}
SHOWN = {  # Lightning's own options that --help shows; --trainer.help shows the others
    "trainer": ("max_steps", "accelerator", "accumulate_grad_batches", "gradient_clip_val", "log_every_n_steps"),
}


def train_help(parser: LightningArgumentParser, words: Sequence[str], *, of_lightning: bool) -> str:
    """All options but Lightning's rarely used ones, with the values of the recipes as defaults; or only Lightning's."""
    recipes = [str(config_file("base.yaml")), *option_values(words, "--config", "-c")]
    values: dict[str, Any] = {}
    for recipe in recipes:
        branches = dict_to_namespace(read_yaml(Path(recipe))).items(branches=True)
        values |= {name.replace(".init_args", ""): value.as_dict() if isinstance(value, Namespace) else value for name, value in branches}
    parser.default_config_files = []
    for action in parser._actions:
        section, _, name = action.dest.partition(".")
        if section in ("model", "data") and name != "help" or of_lightning != (section in SHOWN and name not in SHOWN[section]):
            action.help = SUPPRESS
        action.help = OPTION_HELP.get(action.dest, action.help)
    for group in parser._action_groups:
        group.title = GROUP_TITLES.get(str(group.title), group.title)
    parser._links_group._group_actions.clear()  # type: ignore[attr-defined]
    text = _format_help(parser, values)
    if of_lightning:
        return text
    model = str(values.get("model.class_path")).rpartition(".")[2]
    details = ArgumentParser(add_help=False, usage=SUPPRESS, formatter_class=RecipeHelp)
    details.add_class_arguments(getattr(models, model, TextConditionalDDPM), "model", skip={"resolution", "channels", "seed"})
    details.add_class_arguments(PlantedDataModule, "data", skip={"seed"})
    return f"{text}\nOptions of --model and --data:\n{_format_help(details, values)}\nDefaults are the values of {' and '.join(recipes)}.\n"


def _format_help(parser: ArgumentParser, values: dict[str, Any]) -> str:
    files = [action for action in parser._actions if action.help == "Path to a configuration file."]
    for action in files:
        action.help = SUPPRESS
    known = {action.dest for action in parser._actions if action not in files}
    parser.set_defaults({name: value for name, value in values.items() if name in known})
    return parser.format_help()
