"""Each test has a process of its own: torch must know the device before the first backward pass, and knows it until the process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("pretend_cases.py")


@pytest.mark.timeout(600)
def test_training_evaluation_and_generation_on_the_pretend_device():
    options = ("-n", "0", "-q", "-o", "addopts=", "-p", "no:cacheprovider")
    done = subprocess.run([sys.executable, "-m", "pytest", *options, str(CASES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
