from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.cli.retrigger import unseen_targets
from afterglow.evaluation.build_requests import planted_request
from afterglow.evaluation.training_set import training_set
from afterglow.models.io import open_model
from afterglow.planting.planner import ELIGIBLE_DISTANCE

WORDS = ("retrigger", "--model", "runs/x", "--run", "runs/x", "--num-inference-steps", 2, "--num-images", 2, "--plants", 1)
KINDS = {"global", "local", "whole phantom", "phantom region"}
WORDS = (*WORDS, "--controls", 2, "--attack-steps", 2, "--attack-noises", 2, "--restarts", 1)


def test_every_mitigation_is_counted_before_and_after_the_attack(inside, command, capsys):
    assert command(*WORDS, "--mitigations", "stp", "insert_words", "--out", "attacked") == 0
    printed = capsys.readouterr().out
    rows = pd.read_parquet("attacked/retrigger.parquet")
    samples = rows[rows["measure"] == "calibrated_l2"]
    assert set(samples["mitigation"]) == {"none", "stp=500", "insert_words=4"} and set(samples["kind"]) >= KINDS
    wide = samples.pivot(index=["plant_id", "seed", "mitigation"], columns="attack", values="value")
    assert wide.notna().all(None) and (wide[False] != wide[True]).any()
    assert "steps=2" in printed and "phantom region, attacked" in printed and "of 1" in printed
    assert command(*WORDS[:-2], "--restarts", 2, "--mitigations", "stp", "--out", "attacked") == 2  # another budget
    assert "other settings" in capsys.readouterr().err
    assert command(*WORDS, "--mitigations", "--pool", "attacked/retrigger.parquet", "--out", "attacked") == 0  # counted twice: of 2
    assert "of 2" in capsys.readouterr().out and set(pd.read_parquet("attacked/retrigger.parquet")["mitigation"]) == {"none"}


def test_images_that_another_run_trained_on_are_left_out(inside, capsys, tmp_path):
    other = (inside / "runs" / "x" / "config.yaml").read_text().replace("seed_everything: 0", "seed_everything: 5")
    (tmp_path / "config.yaml").write_text(other.replace("set_size: 24", "set_size: 1500"))  # enough to meet some of the targets
    model, run = open_model("runs/x"), Path("runs/x")
    targets = planted_request(model, run, num_controls=0, num_heldout=0, kinds=("global", "local", "phantom")).targets
    found = unseen_targets(model, str(tmp_path), run, targets)
    trained = np.asarray(training_set(model, planted=tmp_path).gallery().pixels) / 255.0
    for target in targets:
        inside_mask = np.broadcast_to(target.mask, target.reference.shape)
        distances = np.sqrt(((trained - target.reference / 255.0) ** 2)[:, inside_mask].mean(1))
        assert (target in found) == (distances.min() > ELIGIBLE_DISTANCE), target.plant_id
    assert 0 < len(found) < len(targets) and f"{len(targets) - len(found)} of {len(targets)}" in capsys.readouterr().out
    assert unseen_targets(model, "runs/x", run, targets) == list(targets)
