"""The main job through the door: one run, its files, and what is said of it in three places."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file

from afterglow.analysis.summary import ALL_SEEDS, summarize_evaluation
from afterglow.cli import main
from afterglow.functional.localization import map_auc
from afterglow.generations import Generations
from afterglow.measures.memorized import memorized

ROOT = Path(__file__).parents[2]
FAST = ["--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")]

HALVES = ["--data.planting.num_local", "4", "--data.planting.shapes", "[half]"]  # left, right, top, bottom: as often apart as together


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """runs/demo of the demo recipe, cut to seconds, with W&B offline."""
    folder = tmp_path_factory.mktemp("door")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_DATA_DIR", raising=False)
        main(["train", *FAST, *HALVES, "--name", "demo"])
    return folder / "runs" / "demo"


def test_a_run_leaves_what_the_contract_says(run):
    for name in (
        "config.yaml",
        "measurements.parquet",
        "emergence.json",
        "report.html",
        "checkpoints/last.ckpt",
        "maps/step=0.safetensors",
    ):
        assert (run / name).is_file(), name
    plants = load_dataset("imagefolder", data_dir=str(run / "plants"), split="train")
    assert {"image", "mask", "text", "plant_id", "kind", "copies"} <= set(plants.column_names)
    maps = load_file(run / "maps" / "step=6.safetensors")
    assert any(name.startswith("map/end_token.last") for name in maps) and any(name.startswith("mask/") for name in maps)


def test_no_row_is_missing_doubled_or_nan(run):
    rows = pd.read_parquet(run / "measurements.parquet")
    assert rows["value"].notna().all() and np.isfinite(rows["value"]).all()
    assert not rows.duplicated(["step", "plant_id", "seed", "measure"]).any()
    inner = rows[(rows["seed"] != ALL_SEEDS) & (rows["measure"] != "ratio") & ~rows["measure"].str.startswith("ema_off.")]
    for (_step, kind, measure), part in inner.groupby(["step", "kind", "measure"]):
        of_kind = inner[(inner["step"] == _step) & (inner["kind"] == kind)]
        if kind == "phantom" and measure.startswith("auc."):  # only the phantoms of local plants have a region
            of_kind = of_kind[of_kind["measure"].str.startswith("auc.")]
        assert len(part) == len(of_kind[["plant_id", "seed"]].drop_duplicates()), (kind, measure)
    assert set(rows["step"]) == {0, 1, 2, 6} or rows["step"].max() == 6


def test_tracker_parquet_and_page_agree_to_the_last_digit(run, history):
    rows = pd.read_parquet(run / "measurements.parquet").astype(
        {"value": np.float64}
    )  # written in single precision, reckoned with in double
    page = (run / "report.html").read_text(encoding="utf-8")
    embedded = json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.S).group(1))
    recorded: dict[int, dict] = {}
    for row in (row for segment in history(run) for row in segment if "trainer/global_step" in row):
        recorded.setdefault(row["trainer/global_step"], {}).update(row)
    for step, part in rows.groupby("step"):
        expected = summarize_evaluation(part)
        assert expected and embedded[str(step)] == expected
        assert {key: recorded[step][key] for key in expected} == expected


def test_masks_samples_tables_and_histograms_reach_the_tracker(run, history):
    keys = {key for segment in history(run) for row in segment for key in row}
    for wanted in ("media/samples", "media/masks/score_difference.summed", "tables/evaluation", "media/end_token/global", "train/lr"):
        assert any(key.startswith(wanted) for key in keys), wanted
    assert list((run / "wandb").glob("offline-run-*/files/media/images/**/*.mask.png"))


def test_permuting_the_truth_among_plants_forgets_everything(run):
    """With perfect copies as generations, and their truth dealt to other plants, nothing is memorized and no map is right."""
    generations = Generations.load(run / "generations" / "step=6")
    rows = [i for i, kind in enumerate(generations.kind) if kind in ("global", "local")]
    part = generations[rows]
    perfect = Generations(**{**vars(part), "images": part.references})
    assert memorized(perfect).mean() == 1
    turned = torch.arange(len(rows)).roll(2 * 2)  # past the seeds of the same plant
    wrong = Generations(**{**vars(perfect), "references": part.references[turned], "eval_mask": part.eval_mask[turned]})
    assert memorized(wrong).mean() == 0
    local = torch.tensor([i for i, kind in enumerate(part.kind) if kind == "local"])
    maps = part.region[local, 0].float()
    assert map_auc(maps, part.region[local]).mean() == 1
    assert map_auc(maps, part.region[local.roll(2)]).mean() <= 0.5


def test_a_run_that_exists_is_not_overwritten(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent.parent)
    with pytest.raises(SystemExit) as left:
        main(["train", *FAST, "--name", "demo"])
    assert left.value.code == 2 and "--ckpt_path last" in capsys.readouterr().err


def test_a_finished_run_continues_to_nothing(run, monkeypatch):
    monkeypatch.chdir(run.parent.parent)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = pd.read_parquet(run / "measurements.parquet")
    main(["train", *FAST, *HALVES, "--name", "demo", "--ckpt_path", "last"])
    pd.testing.assert_frame_equal(pd.read_parquet(run / "measurements.parquet"), before)


def test_config_repeats_the_run(run, monkeypatch):
    monkeypatch.chdir(run.parent.parent)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    main(["train", "--config", str(run / "config.yaml"), "--name", "again"])
    first, second = (pd.read_parquet(run.parent / name / "measurements.parquet").drop(columns="seconds") for name in ("demo", "again"))
    pd.testing.assert_frame_equal(first, second)


def test_without_copies_nothing_is_memorized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", *FAST, "--name", "none", "--data.planting.copies", "[0]", "--trainer.max_steps", "2"])
    rows = pd.read_parquet("runs/none/measurements.parquet")
    assert rows[rows["measure"] == "plant_memorized"]["value"].sum() == 0
