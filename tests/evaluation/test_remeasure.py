from pathlib import Path

import pandas as pd
import pytest

from afterglow.cli import main
from afterglow.evaluation.remeasure import remeasure

ROOT = Path(__file__).parent.parent.parent
FAST = ["--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")]


def test_a_measure_that_a_run_did_not_ask_for_joins_its_last_probe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = "[calibrated_l2, memorized, score_difference.summed, luminance]"
    more_at_last = asked.replace("]", ", guidance_norm.all, local_contrast]")
    main(["train", *FAST, "--name", "few", "--monitor.measures", asked])
    main(
        [
            "train",
            *FAST,
            "--name",
            "more",
            "--monitor.measures",
            asked,
            "--monitor.final_measures",
            more_at_last,
        ],
    )
    few, more = Path("runs/few"), Path("runs/more")
    before = pd.read_parquet(few / "measurements.parquet")
    new = remeasure(few, ["guidance_norm.all", "local_contrast", "luminance"])
    assert set(new) == {"guidance_norm.all", "auc.local_contrast", "iou.local_contrast"}
    after, expected = (pd.read_parquet(run / "measurements.parquet") for run in (few, more))
    assert before.equals(after[: len(before)])
    keys = ["step", "plant_id", "seed", "measure"]
    for name in new:
        one, other = (table[table["measure"] == name].set_index(keys)["value"].sort_index() for table in (after, expected))
        pd.testing.assert_series_equal(one, other, rtol=1e-3)  # the folder holds halves
    assert remeasure(few, ["guidance_norm.all"]) == []


def test_a_folder_without_a_last_probe_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no generations of a last evaluation"):
        remeasure(tmp_path)
