from pathlib import Path

import pytest
import yaml
from fast_training import FAST

from afterglow.cli import lightning_cli

NAMED = (*FAST, "--name", "x")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_print_config_shows_the_values_of_the_recipe(command, capsys):
    assert command("train", "--print_config", *NAMED, "--data.planting.copies", "8", "--optimizer.learning_rate", "3e-4") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["optimizer"]["learning_rate"] == 3e-4 and config["trainer"]["max_steps"] == 6
    assert config["data"]["init_args"]["planting"]["copies"] in (8, [8])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--optimizer.lerning_rate", "1e-3"), "Unknown option optimizer.lerning_rate: did you mean optimizer.learning_rate?"),
        (("--data.sett_size", "3"), "Unknown option data.sett_size: did you mean data.set_size?"),
        (("--data.planting.copes", "[8]"), "Unknown option data.planting.copes: did you mean data.planting.copies?"),
        (("--trainer.max_stepps", "3"), "Unknown option trainer.max_stepps: did you mean trainer.max_steps?"),
        (("--monitor.seds", "3"), "Unknown option monitor.seds: did you mean monitor.seeds?"),
        (("--nme", "3"), "Unknown option nme: did you mean name?"),
        (("--config", "model.yaml"), "Unknown option model.lerning_rate: did you mean optimizer.learning_rate?"),
        (("--config", "trainer.yaml"), "Unknown option trainer.max_stepps: did you mean trainer.max_steps?"),
        (("--config", "gone.yaml"), "gone.yaml"),
        (("--optimizer.learning_rate", "fast"), "optimizer.learning_rate must be a number, not fast."),
        (("--trainer.logger", "CSVLogger"), "trainer.logger cannot be changed"),
        (("--trainer.max_epochs", "3"), "set trainer.max_steps, not trainer.max_epochs"),
    ],
)
def test_bad_options_are_one_sentence_with_the_nearest_name(command, capsys, words, sentence):
    Path("model.yaml").write_text("model: {init_args: {lerning_rate: 1}}\n")
    Path("trainer.yaml").write_text("trainer: {max_stepps: 1}\n")
    assert command("train", *NAMED, *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert sentence in line and not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["--name", "x", "--ckpt_path", "last"], True),
        (["--name=x", "--resume=auto", "--trainer.max_steps", "9"], True),
        (["--ckpt_path", "last", "--name", "x"], True),
        (["--name", "x"], False),
        (["--resume", "auto"], False),
        (["--name", "y", "--resume", "auto"], False),
    ],
)
def test_own_config_is_that_of_the_run_that_is_resumed_by_name(words, own):
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/config.yaml").touch()
    assert lightning_cli._own_config(words) == (Path("runs/x/config.yaml") if own else None)
