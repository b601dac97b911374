import re
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from fast_training import FAST, OVERLAYS, ROOT

from afterglow.cli import dry_run
from afterglow.errors import AfterglowError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_prints_the_expected_total_and_leaves_nothing(command, capsys):
    words = (*FAST, "--trainer.max_steps", "1000", "--monitor.final_measures", "[sharpness]", "--name", "x")
    assert command("train", *words, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Dry run of 'runs/x', which is not made: 24 training images; planted: 2 global, 2 local")
    found = {name: text.strip() for name, _, text in (line.partition(":") for line in lines[1:])}
    assert found["Processes"] == "1, each with 8 of the 8 samples of a step"
    assert re.fullmatch(r"[\d.]+ GiB after \d+ steps, [\d.]+ GiB after the evaluation, of [\d.]+ GiB", found["Memory"])
    assert re.fullmatch(r"[\d.e-]+ seconds; 1,000 steps: [\d.]+ \w+", found["Step"])
    assert re.fullmatch(r"[\d.]+ seconds for 28 generations; 5 evaluations: [\d.]+ \w+", found["Evaluation"])
    assert re.fullmatch(r"[\d.]+ \w+, \d+% of it in evaluations", found["Expected"])
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words", [("--trainer.devices", "2", "--trainer.num_nodes", "2"), ("--trainer.devices", "4", "--trainer.precision", "bf16-mixed")]
)
def test_several_processes_are_checked_on_one_device(command, capsys, words):
    plain = ("--config", str(ROOT / "configs/openmoji_ddpm.yaml"), *OVERLAYS)
    assert command("train", *plain, *words, "--dry-run") == 0
    assert "Processes:  4, each with 2 of the 8 samples of a step (this one did the work of the first)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--trainer.devices", "3"), "batch_size 8 does not divide into 3 parts (processes x accumulated batches)."),
        (("--trainer.devices", "many"), "trainer.devices must be a number of devices, not many."),
        (("--trainer.num_nodes", "0"), "trainer.num_nodes must be at least 1, not 0."),
        (("--data.set_size", "100000"), "images"),
        (("--trainer.precision", "16-mixed"), "fp16 is not supported on CPU"),
    ],
)
def test_bad_input_of_a_dry_run_is_refused_in_one_sentence(command, capsys, words, sentence):
    assert command("train", *FAST, *words, "--dry-run") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert sentence in line and not Path("runs").exists()


def test_a_gpu_without_enough_memory_names_what_to_lower():
    class Trainer:
        callbacks: list = []
        strategy = SimpleNamespace(root_device=torch.device("cpu"))

        def fit(self, *_):
            raise torch.OutOfMemoryError("CUDA out of memory")

    run = dry_run.DryRun(None, 10, 1)
    for option in ("data.batch_size", "monitor.batch_size"):
        run.option = option
        with pytest.raises(AfterglowError, match=rf"The memory of cpu \([\d.]+ GiB\) does not suffice: lower {option}\."):
            run.run(Trainer(), None, None)


def test_weights_that_are_trained_and_not_used_are_named_where_there_are_several_processes():
    module = L.LightningModule()
    module.used, module.idle = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    module.used.sum().backward()
    dry_run.DryRun(None, 10, 1).on_before_optimizer_step(None, module, None)
    with pytest.raises(AfterglowError, match="idle is trained but not used"):
        dry_run.DryRun(None, 10, 2).on_before_optimizer_step(None, module, None)
