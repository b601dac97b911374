"""Recipes (YAML files) on the command line, and clear sentences for what jsonargparse refuses in them."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, get_loader, set_loader, set_parsing_settings

from afterglow.errors import AfterglowError, did_you_mean, one_line, require, user_error
from afterglow.files import check_yaml, read_yaml

CHECKOUT = Path(__file__).parents[3]  # where configs/ lies
ALLOW_IMPORT = "--allow_import"
ALLOWED = ("afterglow", "diffusers", "lightning", "torch", "torchvision", "transformers")  # packages whose classes a recipe may name
DENIED = (  # what would call or load what a recipe names
    *("torch.hub", "torch.load", "torch.save", "torch.serialization", "torch.jit", "torch.package", "torch.utils.cpp_extension"),
    *("lightning.pytorch.callbacks.LambdaCallback", "lightning.pytorch.callbacks.lambda_function"),
)
_LOAD = get_loader("yaml")
_LINKED = "{} follows seed_everything, and data.planting.seed is that of the choice of images alone."
UNKNOWN = re.compile(
    r"Option '(?P<option>[^']+)' is not accepted|unrecognized arguments: (?:--?)?(?P<argument>[^\s=]+)"
    r"|ambiguous option: --(?P<ambiguous>[^\s=]+)|Group '(?P<group>[\w.]+)' does not accept option '(?P<member>[^']+)'"
)
TYPES = {
    "int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "dict": "a mapping",
    **dict.fromkeys(("Sequence", "Iterable", "list", "tuple"), "a list"),
}  # fmt: skip


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
    """Return the names of all options, and those of the classes that `key: {class_path: ...}` may name, with their options.

    Args:
        parser: the parser.
        classes: the classes of each key.
    """
    names = {action.dest for action in parser._actions}
    for key, kinds in classes.items():
        for kind in kinds:
            names.add(kind.__name__)
            helper = ArgumentParser(add_help=False)
            helper.add_class_arguments(kind, key)
            names |= {action.dest for action in helper._actions}
    return names


def parse_recipe(parser: ArgumentParser, words: Sequence[str], **classes: Iterable[type]) -> Any:
    """Parse a command line with recipes; every mistake is one sentence, and nothing outside of ALLOWED is imported.

    Args:
        parser: the parser.
        words: the command line.
        classes: the classes of each key that `class_path` may name, for suggestions.
    """
    _restrict(words)
    for option in ("data.seed", "data.init_args.seed", "model.seed", "model.init_args.seed"):
        if option_values(words, f"--{option}"):
            raise AfterglowError(_LINKED.format(option))
    for file in option_values(words, "--config", "-c"):
        if not Path(file).is_file():
            recipes = [str(path) for path in Path(file).parent.glob("*.yaml")]
            raise AfterglowError(f"There is no recipe '{one_line(file, 100)}'{did_you_mean(file, recipes) or '.'}")
        for section, options in read_yaml(Path(file)).items():
            if section in ("data", "model") and isinstance(options, dict) and "seed" in (options.get("init_args") or {}):
                raise AfterglowError(_LINKED.format(f"'{file}': {section}.init_args.seed"))
    try:
        return parser.parse_args(list(words))
    except Exception as error:  # jsonargparse lets errors of types and encodings through
        if user_error(error):  # what a constructor of ours raised
            raise
        raise explained(error, known_options(parser, **classes)) from error


def option_values(words: Sequence[str], *options: str) -> list[str]:
    """Values of an option on a command line, as `--option VALUE` or `--option=VALUE`."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return [word.partition("=")[2] or following for word, following in pairs if word.partition("=")[0] in options]


def _restrict(words: Sequence[str]) -> None:
    """Limit what recipes may import to ALLOWED and the packages of --allow_import, and check every YAML text before it is loaded."""
    more = [name for value in option_values(words, ALLOW_IMPORT) for name in value.split(",")]
    for name in more:
        require(ALLOW_IMPORT, name, name.isidentifier() and name != "jsonargparse", "names of packages, separated by commas")
    set_parsing_settings(
        import_path_denylist=["*", *DENIED], import_path_allowlist=[*ALLOWED, *more], instantiate_subclass_spec_in_any=False
    )
    set_loader("yaml", _load_yaml, (yaml.YAMLError,))


def _load_yaml(text: str) -> Any:
    check_yaml(text, "An option")
    return _LOAD(text)


def explained(error: Exception, known: Iterable[str]) -> AfterglowError:
    """Return an error of one sentence instead of jsonargparse's list of everything it tried.

    Args:
        error: what jsonargparse raised.
        known: names of options and classes, for suggestions.
    """
    message = " ".join(str(error).split())
    name = _option(message)
    if name == "trainer.logger":
        return AfterglowError("trainer.logger cannot be changed: Afterglow logs to W&B, which WANDB_MODE=disabled turns off.")
    if denied := re.search(r"Importing '([^']*)' is not allowed", message):
        packages = f"only classes of {', '.join(ALLOWED)} are allowed; {ALLOW_IMPORT} PACKAGE adds one that you trust."
        return AfterglowError(f"{name or 'A recipe'} may not import {one_line(denied[1], 60)}: {packages}")
    if unknown := UNKNOWN.search(message):
        option = ".".join(part for part in unknown.groups() if part)
        option = option if option.startswith(name) else f"{name}.{option}"
        hint = _nearest(option, known) or "; `afterglow train --help` lists all options."
        return AfterglowError(f"Unknown option {one_line(option, 100)}{hint}")
    if missing := re.search(r"the following arguments are required: ([\w., ]+)", message):
        return AfterglowError(f"{name or 'The recipe'} lacks the required option {missing[1]}.")
    if path := re.search(r"Expected a dot import path string: (\S+)", message):
        return AfterglowError(f"{name}: there is no class '{one_line(path[1], 60)}'{did_you_mean(path[1], known) or '.'}")
    if expected := _expected(message.rpartition('Parser key "')[2]):
        return AfterglowError(f"{name} must be {expected}.")
    return AfterglowError(message.removeprefix('Parser key "config": '))


def _option(message: str) -> str:
    """Dotted name of the option that a message is about, from the keys of jsonargparse's nested parsers."""
    name = ""
    for key in re.findall(r'Parser key "([\w.]+)"', message):
        if key != "config" and not key.startswith(name or key):
            name = name if name.endswith(key) else f"{name}.{key}"
        elif key != "config":
            name = key
    return name


def _expected(message: str) -> str:
    """What a message expects, and the value that it refuses, such as "an integer, not x"; empty if it does not say so."""
    given = re.search(r"(?:Got value:|Given value:|Unable to load config) (.*?)(?: - |$| Given value)", message)
    value = one_line(given[1], 60) if given else "this value"
    choices = [choice.strip(" '") for words in re.findall(r"typing\.Literal\[([^\]]*)\]", message) for choice in words.split(",")]
    kinds = [TYPES[kind] for kind in re.findall(r"Expected an? <class '(?:[\w.]*\.)?(\w+)'>", message) if kind in TYPES]
    if choices:
        return f"one of {', '.join(dict.fromkeys(choices))}, not {value}{did_you_mean(value, choices)}".rstrip("?")
    if "Not a valid subclass" in message:
        return f"a class_path with init_args, not {value}"
    if "Unable to load config" in message:
        return f"a mapping of options, not {value}"
    return f"{' or '.join(dict.fromkeys(kinds))}, not {value}" if kinds else ""


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest option by the whole name, or else by its last part."""
    leaves = {option.rpartition(".")[2]: option for option in sorted(known, reverse=True)}
    near = difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1, cutoff=0.75)
    whole = did_you_mean(name, [option for option in known if option.count(".") == name.count(".")])
    return whole or (f": did you mean {leaves[near[0]]}?" if near else "")
