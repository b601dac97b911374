import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help_shows_every_option_of_ours_with_a_text_and_hides_those_of_lightning(command, capsys):
    assert command("train", "--help") == 0
    text = capsys.readouterr().out
    assert "\n  afterglow train --name first --ckpt_path last  " in text
    for option in (
        "--name",
        "--optimizer.learning_rate",
        "--data.planting.copies",
        "--monitor.seeds",
        "--wandb.project",
        "--trainer.max_steps",
        "--checkpoint.every_minutes",
    ):
        assert f"  {option} " in text
    for hidden in ("--trainer.barebones", "--trainer.overfit_batches", "Linked arguments", "Path to a configuration file", "Customize"):
        assert hidden not in text
    defaults = dict(re.findall(r"  --([\w.]+) (?:(?!  --).)*?default: ([^)]*)\)", text, re.DOTALL))
    assert {name: defaults[name] for name in ("optimizer.learning_rate", "trainer.max_steps", "data.planting.copies")} == {
        "optimizer.learning_rate": "0.002",
        "trainer.max_steps": "925",
        "data.planting.copies": "[500]",
    }
    assert "Defaults are the values of " in text and "demo.yaml" in text
    assert command("train", "--config", ROOT / "configs/openmoji_ddpm.yaml", "--help") == 0
    assert "--model.text" not in capsys.readouterr().out
    assert command("train", "--trainer.help") == 0
    text = capsys.readouterr().out
    assert "--trainer.barebones" in text and "--wandb.entity" not in text
