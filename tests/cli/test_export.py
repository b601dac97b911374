from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline

from afterglow.models.ddpm import DDPM

UNET = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "block_out_channels": [8], "norm_num_groups": 4}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose averaged weights are 0 and whose raw ones are not."""
    model = DDPM(UNET, resolution=8)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    average = {name: torch.zeros_like(value) for name, value in state.items()}
    checkpoint = {"denoiser": {"name": "DDPM", "init_args": dict(model.init_args)}, "state_dict": average}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint | {"current_model_state": state}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    return tmp_path / "run"


@pytest.mark.parametrize("raw", [False, True])
def test_export_no_ema_writes_the_raw_weights(
    raw: bool, run: Path, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(run / "checkpoints" / "last.ckpt") if raw else str(run)
    assert command("export", source, "--out", str(tmp_path / "out"), *["--no-ema"] * raw) == 0
    assert str(tmp_path / "out") in (printed := capsys.readouterr().out) and ("raw" in printed) == raw
    assert DDPMPipeline.from_pretrained(tmp_path / "out").unet.conv_in.weight.any() == raw


def test_export_bad_input_is_refused_in_one_sentence(
    run: Path, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        ((str(run), "--out", str(tmp_path / "out"), "--wandb"), f"error: --wandb: '{run}' belongs to no run folder"),
        (("gone.ckpt", "--out", str(tmp_path / "out")), "error: There is no checkpoint 'gone.ckpt'.\n"),
        ((str(run), "--out", str(run)), f"error: '{run}' is a file or is not empty"),
    ):
        assert command("export", *arguments) == 2
        assert sentence in capsys.readouterr().err
    assert command("export", str(run)) == 2 and "--out" in capsys.readouterr().err


def test_export_help_keeps_the_example_lines(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("export", "--help") == 0
    assert "  afterglow export runs/demo --out exported\n" in capsys.readouterr().out
