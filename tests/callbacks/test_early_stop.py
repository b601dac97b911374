import json
import math

import pandas as pd
import pytest
import torch
from fast_training import FAST

from afterglow.callbacks.early_stop import EarlyStop
from afterglow.cli import main

ROWS = pd.DataFrame(
    [
        ("global", "a cat", "plant_memorized", 0.0),
        ("local", "a dog", "plant_memorized", 1.0),
        ("phantom", "a cow", "plant_memorized", 1.0),
        ("global", "a cat", "denoising_log_ratio.inside", 0.7),
        ("local", "a dog", "denoising_log_ratio.inside", 0.68),
        ("local", "a dog", "denoising_log_ratio.inside.t=3", 9.0),
        ("control", "a hen", "denoising_log_ratio.inside", 2.0),
    ],
    columns=["kind", "caption", "measure", "value"],
)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (EarlyStop(), []),
        (EarlyStop("memorized"), ["local plant 'a dog'"]),
        (EarlyStop("memorized", kinds=("global",)), []),
        (EarlyStop("denoising_log_ratio", threshold=0.69), ["global plant 'a cat'"]),
        (EarlyStop("denoising_log_ratio"), ["global plant 'a cat'", "local plant 'a dog'"]),
        (EarlyStop("denoising_log_ratio", threshold=1.0), []),
    ],
)
def test_a_plant_of_the_kinds_has_emerged(stop, expected):
    assert stop.emerged(ROWS) == expected


def test_the_default_is_half_of_the_error_and_other_kinds_are_refused():
    assert math.exp(-2 * EarlyStop().threshold) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="global, local, natural, not 'phantom'"):
        EarlyStop("memorized", kinds=("phantom",))
    for options in ({"kinds": ("global",)}, {"threshold": 1.0}, {"monitor": "memorized", "threshold": 1.0}):
        with pytest.raises(ValueError, match="effect"):
            EarlyStop(**options)


FINAL = ["--monitor.final_measures", "[guidance_norm.all, early_difference.last, centered_gaussian]", "--monitor.early_fraction", "0.9"]
EARLY = [
    "--monitor.early_stop.monitor",
    "denoising_log_ratio",
    "--monitor.early_stop.threshold",
    "-9",
    "--monitor.step_ratio",
    "1.5",
    "--monitor.measures",
    "[memorized]",
    "--checkpoint.every_n_train_steps",
    "100",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Stopped at the first probe after step 0, with the measure that needs an early network among the last ones."""
    folder = tmp_path_factory.mktemp("stop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["train", *FAST, *EARLY, *FINAL, "--name", "x"])
    return folder / "runs" / "x"


def test_the_evaluation_at_which_a_training_stops_is_its_last_in_every_way(run):
    rows = pd.read_parquet(run / "measurements.parquet")
    assert sorted(rows["step"].unique()) == [0, 1] and not rows.duplicated(["step", "plant_id", "seed", "measure"]).any()
    last = rows[rows["step"] == 1]
    assert "control" in set(last[last["measure"] == "memorized"]["kind"]) and "ema_off.memorized" in set(last["measure"])
    assert "auc.early_difference.last" in set(last["measure"])
    assert "plants" in json.dumps(json.loads((run / "emergence.json").read_text())) and (run / "generations" / "step=1").is_dir()
    assert (run / "report.html").is_file() and (run / "maps" / "step=1.safetensors").is_file()
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1


def test_a_stopped_run_trains_nothing_more_and_says_so_until_it_is_told_to_go_on(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent.parent)
    monkeypatch.setattr("afterglow.cli.lightning_cli.write_report", lambda folder, **options: folder / "report.html")
    before = pd.read_parquet(run / "measurements.parquet")
    main(["train", *FAST, *EARLY, *FINAL, "--name", "x", "--ckpt_path", "last"])
    assert "This run was already complete: nothing was trained." in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_parquet(run / "measurements.parquet"), before)
    main(
        [
            "train",
            *FAST,
            "--trainer.max_steps",
            "2",
            "--monitor.measures",
            "[calibrated_l2]",
            "--name",
            "x",
            "--ckpt_path",
            "last",
            "--allow_changes",
            "true",
        ]
    )
    assert pd.read_parquet(run / "measurements.parquet")["step"].max() == 2
