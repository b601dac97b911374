"""A training through torch.compile with the real compiler: it resumes, and its rows are those of the same training without it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fast_training import ENDS, OVERLAYS, ROOT

from afterglow.cli import main

COMPILER = os.environ.get("CXX", "g++")
TRAIN = ["train", "--config", str(ROOT / "configs/openmoji_ddpm.yaml"), *OVERLAYS, *ENDS, "--trainer.max_steps", "4"]


def rows(name: str) -> pd.DataFrame:
    return pd.read_parquet(f"runs/{name}/measurements.parquet").drop(columns="seconds")


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"torch.compile needs a C++ compiler, and there is no {COMPILER}")
def test_a_compiled_training_resumes_and_has_the_rows_of_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([*TRAIN, "--name", "plain"])
    compiled = [*TRAIN, "--model.compile", "true", "--checkpoint.save_top_k=-1"]
    main([*compiled, "--name", "whole"])
    shutil.copytree("runs/whole", "runs/half")
    for name in ("last", "step=4"):
        Path(f"runs/half/checkpoints/{name}.ckpt").unlink()
    main([*compiled, "--name", "half", "--resume", "auto"])
    pd.testing.assert_frame_equal(rows("half"), rows("whole"))
    pd.testing.assert_frame_equal(rows("whole").drop(columns="value"), rows("plain").drop(columns="value"))
    difference = np.abs(rows("whole")["value"] - rows("plain")["value"]).max()
    print(f"\nlargest difference between a compiled training and one that is not: {difference:.1e}")
    assert 0 < difference < 1e-4
