"""The examples in the docstrings of functional/ run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import afterglow.functional

MODULES = [found.name for found in pkgutil.iter_modules(afterglow.functional.__path__, "afterglow.functional.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_each_module_print_what_they_say(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0 and results.attempted > 0
