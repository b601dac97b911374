from types import SimpleNamespace

import pytest

from afterglow.cli import train_options
from afterglow.errors import AfterglowError


def test_default_name_is_the_recipe_and_the_values_of_a_sweep(monkeypatch):
    config = SimpleNamespace(config=["configs/demo.yaml"])
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert train_options.default_name(config) == "demo" and train_options.default_name(SimpleNamespace(config=None)) == "demo"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    assert train_options.default_name(config) == "demo-r"
    words = ["--config", "x.yaml", "--seed_everything=1", "--data.planting.copies=[25]", "--model.unet.block_out_channels=[16, 32]"]
    assert train_options.default_name(config, words) == "demo-copies=25-block_out_channels=16,32-seed=1"


def test_create_run_dir_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(AfterglowError, match="cannot be written"):
        train_options.create_run_dir(tmp_path / "x")
