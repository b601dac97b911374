import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from afterglow.callbacks.preemption import Preemption, take_max_seconds
from afterglow.cli import main
from afterglow.signals import Stopped, StopSignals

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["--model.unet.block_out_channels", "[8,16]", "--model.unet.norm_num_groups", "4", "--model.unet.attention_head_dim", "8"]
FEW = ["--monitor.measures", "[calibrated_l2,memorized]", "--monitor.num_unprompted", "4", "--trainer.max_steps", "4"]
TRAIN = ["train", "--config", str(CONFIGS / "openmoji_ddpm.yaml"), "--config", str(CONFIGS / "overlays/fast.yaml"), *SMALL, *FEW]


def test_check_raises_for_a_signal_and_tells_when_the_time_is_over():
    signals = StopSignals()
    assert not Preemption(signals).check() and not Preemption(signals, 60).check() and Preemption(signals, 0).check()
    signals.received = signal.SIGTERM
    with pytest.raises(Stopped, match="SIGTERM"):
        Preemption(signals, 0).check()


def test_signal_of_another_process_counts(monkeypatch):
    preemption = Preemption(StopSignals())
    preemption._group = "all"
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda request, operation, group: request.fill_(signal.SIGUSR1))
    with pytest.raises(Stopped, match="SIGUSR1"):
        preemption.check()


def test_timer_of_max_time_is_removed():
    trainer = SimpleNamespace(callbacks=[Timer("00:00:01:30")])
    assert take_max_seconds(trainer) == 90 and trainer.callbacks == [] and take_max_seconds(trainer) is None


@pytest.mark.parametrize("first_fraction", ["1.0", "0.25"])  # the second one evaluates before a loss or a checkpoint is not finite
def test_diverging_training_exits_with_code_3_and_keeps_the_last_good_checkpoint(first_fraction, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--checkpoint.every_n_train_steps", "1", "--optimizer.warmup_steps", "0", "--optimizer.learning_rate", "1e30"]
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, "--name", "x", *options, "--monitor.first_fraction", first_fraction])
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 3 and message.startswith("error: The training diverged at step ") and "learning rate 1e+30" in message
    last = Path("runs/x/checkpoints/last.ckpt")
    assert (str(last) in message) == last.exists() and not Path("runs/x/emergence.json").exists()
    if last.exists():
        weights = torch.load(last, weights_only=True)["current_model_state"]
        assert all(value.isfinite().all() for value in weights.values())
