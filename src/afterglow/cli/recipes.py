"""Recipes (YAML files) on the command line, and clear sentences for what jsonargparse refuses in them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from afterglow.errors import AfterglowError, did_you_mean

CHECKOUT = Path(__file__).parents[3]  # where configs/ lies
UNKNOWN = re.compile(
    r"Option '(?P<option>[\w.]+)' is not accepted|unrecognized arguments: --?(?P<argument>[\w.-]+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<member>[\w.]+)'"
)
WRONG_TYPE = re.compile(r"Parser key \"(?P<key>[\w.]+)\": Expected an? <class '(?:[\w.]*\.)?(?P<type>\w+)'>\. Got value: (?P<value>\S+)")


class RecipeHelp(DefaultHelpFormatter):
    """Keeps the line breaks of the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text


def config_file(name: str) -> Path:
    """Return a file of configs/, in the working directory or in the checkout that holds this package.

    Raises:
        AfterglowError: neither has it.
    """
    for folder in (Path(), CHECKOUT):
        if (folder / "configs" / name).is_file():
            return folder / "configs" / name
    raise AfterglowError(f"There is no configs/{name} here: run this command inside a checkout of Afterglow.")


def names_recipe(arguments: Sequence[str]) -> bool:
    """Return whether a command line has a --config option."""
    return any(word.split("=")[0] in ("--config", "-c") for word in arguments)


def known_options(parser: ArgumentParser, **classes: Iterable[type]) -> set[str]:
    """Return the names of all options, with those of the classes that `key: {class_path: ...}` may name.

    Args:
        parser: the parser.
        classes: the classes of each key.
    """
    names = {action.dest for action in parser._actions}
    for key, kinds in classes.items():
        for kind in kinds:
            helper = ArgumentParser(add_help=False)
            helper.add_class_arguments(kind, key)
            names |= {action.dest for action in helper._actions}
    return names


def explained(error: ArgumentError, known: Iterable[str]) -> AfterglowError:
    """Return an error of one sentence instead of jsonargparse's list of everything it tried.

    Args:
        error: what jsonargparse raised.
        known: names of options, for suggestions.
    """
    message = " ".join(str(error).split())
    section = re.search(r'Parser key "(\w+)": (?!Expected)', message)
    prefix = f"{section[1]}." if section else ""
    if 'Parser key "trainer.logger"' in message:
        return AfterglowError("trainer.logger cannot be changed: Afterglow logs to W&B, which WANDB_MODE=disabled turns off.")
    if unknown := UNKNOWN.search(message):
        name = prefix + ".".join(part for part in unknown.groups() if part)
        return AfterglowError(f"Unknown option {name}{did_you_mean(name, known) or '; `afterglow train --help` lists all options.'}")
    if wrong := WRONG_TYPE.search(message):
        return AfterglowError(f"{prefix}{wrong['key']} must be of type {wrong['type']}, and it is {wrong['value']}.")
    return AfterglowError(message.removeprefix('Parser key "config": '))
