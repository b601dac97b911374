"""The command `afterglow`: one module for each subcommand.

A module has `add_arguments(parser)` and `run(args)`, or `main(arguments)` where jsonargparse parses the options. Heavy libraries are
imported inside `run`, so that `--help` and a mistyped option answer at once.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from afterglow.cli.parser import CommandParser
from afterglow.errors import configure_logging, did_you_mean, exit_on_user_error, exit_with, one_line
from afterglow.memory import keep_freed_memory

COMMANDS = {
    "train": "train a model on a set with plants and measure what it memorizes",
    "plant": "write the training set of a recipe, plants included, as a folder",
    "deduplicate": "remove duplicates from a folder that `plant` wrote",
    "near-duplicates": "find near-duplicate images in a dataset",
    "autoencoder": "make a small model with Stable Diffusion's structure",
    "text-encoder": "make a small causal text encoder for models with captions",
    "export": "write a trained model as a diffusers folder",
    "collect": "generate samples from a model and record what measures read",
    "measure": "compute measures of collected generations",
    "detect": "evaluate how well scores detect memorized samples",
    "localize": "evaluate how well maps locate the memorized region",
    "mitigate": "compare mitigations at inference with the unmitigated model",
    "retrigger": "attack mitigations: can an optimized text embedding bring a copy back?",
    "unlearn": "fine-tune a model away from some training images and count the copies that are left",
    "knockout": "count the copies that remain without the caption's content in a group of tokens",
    "audit": "find which of your images a model copies, whole or in part, and since when",
    "extract": "generate many samples and find the training images among them",
    "emergence": "estimate when plants become memorized, over several runs",
    "runs": "list the runs of a folder with their state, step and memorized fractions",
    "compare": "compare runs of one recipe in a table",
    "paired-runs": "compare trainings with a mitigation with their baselines",
    "report": "write the HTML report of a run",
    "dashboard": "save a W&B workspace or report for the runs of a project",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the subcommand that the arguments name.

    Args:
        arguments: the words after `afterglow`; default: those of the command line.

    Raises:
        SystemExit: code 2 after one sentence on bad input.
    """
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return
    if name not in COMMANDS:
        raise exit_with(f"Unknown command '{one_line(name, 40)}'{did_you_mean(name, COMMANDS) or '; `afterglow --help` lists all.'}")
    module = import_module(f"afterglow.cli.{name.replace('-', '_')}")
    configure_logging()
    keep_freed_memory()
    with exit_on_user_error():
        if hasattr(module, "main"):
            module.main(rest)
            return
        parser = CommandParser(prog=f"afterglow {name}", description=module.__doc__)
        module.add_arguments(parser)
        module.run(parser.parse_args(rest))


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    usage = "usage: afterglow COMMAND [options]\n\nPlant images in a training set and measure which of them a diffusion model memorizes.\n"
    return "\n".join([usage, "commands:", *lines, "", "`afterglow COMMAND --help` explains a command and its options."])
