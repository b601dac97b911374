import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from afterglow.testing.pretend import pretend_accelerator

CASES = Path(__file__).with_name("pretend_cases.py")


@pytest.mark.timeout(600)
def test_training_evaluation_and_generation_on_the_pretend_device():
    options = ("-n", "0", "-q", "-o", "addopts=", "-p", "no:cacheprovider")
    done = subprocess.run([sys.executable, "-m", "pytest", *options, str(CASES)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_the_device_comes_too_late_after_a_backward_pass():
    torch.ones(1, requires_grad=True).sum().backward()
    with pytest.raises(RuntimeError, match="before the first backward pass of the process"), pretend_accelerator():
        pass
