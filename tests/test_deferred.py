import subprocess
import sys

import pytest

from afterglow.deferred import Deferred
from afterglow.measures.registry import ANY_MEASURES


def test_a_deferred_function_is_that_of_its_module() -> None:
    assert Deferred("math").gcd(12, 18) == 6 and Deferred("fractions").Fraction(numerator=1) == 1
    with pytest.raises(AttributeError, match="missing"):
        Deferred("math").missing()


def test_lists_and_refusals_of_names_load_no_heavy_library() -> None:
    code = """
import sys
from afterglow.cli import main
for words in (["measure", "--list"], ["mitigate", "--list"], ["collect", "--model", "none", "--out", "x", "--measures", "ld.bee.al"]):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 2, words
assert not {"torch", "pandas", "diffusers", "transformers", "sklearn", "matplotlib"} & set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "No measure is named 'ld.bee.al'" in ended.stderr and ANY_MEASURES[-1].name in ended.stdout and "dtp.scale_1" in ended.stdout
