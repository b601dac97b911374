"""A module that is imported when one of its functions is called, so that tables of functions are listed without heavy libraries."""

from functools import partial
from importlib import import_module
from typing import Any


class Deferred:
    """Stands for a module.

    Args:
        name: its full name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, function: str) -> Any:
        """A function that imports the module and calls its function or class of this name."""
        return partial(_call, self._name, function)


def _call(module: str, function: str, *values: Any, **named: Any) -> Any:
    return getattr(import_module(module), function)(*values, **named)
