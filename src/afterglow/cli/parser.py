"""The parser of all commands but `train` and `plant`: shows defaults and names the nearest option for a misspelled one."""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from afterglow.errors import did_you_mean, exit_with, one_line

MAX_COUNT = 2**32  # seeds are below


def positive(text: str) -> int:
    """An integer from 1."""
    return _number(text, int, 1)


def count(text: str) -> int:
    """An integer from 0."""
    return _number(text, int, 0)


def finite(text: str) -> float:
    """A finite number from 0."""
    return _number(text, float, 0)


def _number(text: str, kind: type, low: int) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= MAX_COUNT:
        name = "an integer" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {name} from {low}, not '{one_line(text, 60)}'")
    return value


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description and appends "(required)" or the default to each option's text."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction) or not action.option_strings or "default:" in text:
            return text
        if action.required:
            return f"{text} (required)"
        default = action.default
        shown = "off" if default is False else " ".join(map(str, default)) if isinstance(default, list | tuple) else default
        return f"{text} (default: {str(shown).replace('%', '%%')})"


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence and exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=HelpFormatter, allow_abbrev=False)

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse the words of a command line.

        An option whose name ends with a dot stands for all options that begin like it; they are kept, unparsed, in `prefixed`.
        Misspelled options are reported before missing ones, since they are often the same mistake.
        """
        known = self._option_string_actions
        prefixes = tuple(option for option in known if option.endswith("."))
        words, prefixed, remaining = list(args), [], []
        while words:
            word = words.pop(0)
            option, equals, _ = word.partition("=")
            if prefixes and option.startswith(prefixes):
                prefixed += [word] if equals or not words else [word, words.pop(0)]
                continue
            if option.startswith("--") and len(option) > 2 and option not in known:
                self.error(f"Unknown option {option}{did_you_mean(option, known) or '.'}")
            remaining.append(word)
        return super().parse_args(remaining, argparse.Namespace(prefixed=prefixed))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"'{value}' is not a choice{did_you_mean(str(value), choices) or '.'} Choices: {', '.join(choices)}."
            )

    def error(self, message: str) -> NoReturn:
        """Print the message with the command that helps, and exit with code 2."""
        help_text = f" (`{self.prog} --help` explains all options.)"
        raise exit_with(one_line(message[0].upper() + message[1:], 290 - len(help_text)) + help_text)


def announce(text: str) -> None:
    """Print at once what a command that will be silent for seconds is doing; to stderr, by the main process only."""
    from afterglow.distributed import is_main_process

    if is_main_process():
        print(text, file=sys.stderr, flush=True)
