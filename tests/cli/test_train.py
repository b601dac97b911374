"""The main job through the command: one run, its files, and what is said of it in three places."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import load_dataset
from fast_training import ENDS, FAST
from safetensors.torch import load_file

from afterglow import keys
from afterglow.analysis.summary import ALL_SEEDS, summarize_evaluation
from afterglow.cli import main
from afterglow.functional.localization import map_auc
from afterglow.generations import Generations
from afterglow.kinds import NOT_MEMORIZED
from afterglow.loggers.workspace import GROUPED_BY, SWEPT, VIEWS, specification, workspace
from afterglow.measures.memorized import memorized

ROOT = Path(__file__).parents[2]

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
    rows = pd.read_parquet(run / "measurements.parquet").astype({"value": np.float64})  # written in single precision, computed in double
    page = (run / "report.html").read_text(encoding="utf-8")
    embedded = json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.S).group(1))
    recorded: dict[int, dict] = {}
    for row in (row for segment in history(run) for row in segment if "trainer/global_step" in row):
        recorded.setdefault(row["trainer/global_step"], {}).update(row)
    for step, part in rows.groupby("step"):
        expected = summarize_evaluation(part)
        place = embedded["step"].index(step)
        shown = {key: values[place] for key, values in embedded.items() if key != "step" and values[place] is not None}
        assert expected and shown == expected
        assert {key: recorded[step][key] for key in expected} == expected


MEDIA = ("media/", "tables/")
UNDOCUMENTED = ("_", "trainer/global_step", "epoch")  # of W&B and Lightning


@pytest.fixture(scope="module")
def recorded(run, records):
    """Records of the offline W&B run by their type."""
    (segment,) = records(run)
    return {kind: [record[kind] for record in segment if record["type"] == kind] for kind in {record["type"] for record in segment}}


def documented() -> dict[str, str]:
    """{key of docs/reference/wandb.md: pattern}; capital words stand for a name."""
    lines = (ROOT / "docs/reference/wandb.md").read_text(encoding="utf-8").splitlines()
    names = [name for line in lines if line.startswith("| `") for name in re.findall(r"`([a-z]+/[^`]+)`", line.split("|")[1])]
    return {name: re.sub(r"[A-Z_]*[A-Z]", ".+", re.escape(name)) for name in names}


def test_every_documented_key_is_logged_once_per_step_and_no_other(recorded):
    times: dict[str, list[int]] = {}
    for item in (row["item"] for row in recorded["history"]):
        for key in {
            re.sub(r"\.(_|sha256|size|path|format|height|width|caption|masks|bins|values|ncols|nrows|log_mode|artifact_path).*", "", k)
            for k in item
        }:
            if not key.startswith(UNDOCUMENTED):
                times.setdefault(key, []).append(item["trainer/global_step"])
    patterns = documented()
    for key, steps in times.items():
        assert len(steps) == len(set(steps)), key
        assert sum(bool(re.fullmatch(pattern, key)) for pattern in patterns.values()) == 1, key
    summary = {key for update in recorded["summary"] for key in update["update"]}
    elsewhere = {"train/dropped_fraction", "train/overflows"}  # of a mitigation that drops samples, and of fp16
    elsewhere |= {"outpainted/KIND", "outpainted/KIND_fresh"}  # of models without captions
    elsewhere |= {"audit/copied_whole", "audit/copied_in_part", "tables/audit"}  # of a training that audits its own images
    elsewhere |= {"extraction/RULE", "mitigation/NAME/NUMBER"}  # of other commands
    for name, pattern in patterns.items():
        assert name in elsewhere or any(re.fullmatch(pattern, key) for key in [*times, *summary]), name


def test_every_number_has_its_maximum_and_last_value_in_the_summary(recorded):
    summary = {key: value for update in recorded["summary"] for key, value in update["update"].items()}
    numbers = {key for row in recorded["history"] for key in row["item"] if not key.startswith((*MEDIA, *UNDOCUMENTED))}
    assert len(numbers) > 500 and all(set(summary[key]) == {"max", "last"} for key in numbers)
    groups = [metric["glob_name"] for metric in recorded["metric"] if "glob_name" in metric]
    assert groups[:2] == ["memorized/*", "train/*"] and {"emergence/global_step", "emergence/local_censored"} <= set(summary)


def test_masks_have_both_layers_and_the_table_has_images(recorded, run):
    items = [row["item"] for row in recorded["history"]]
    masks = [item for item in items if any(key.startswith("media/masks/") for key in item)]
    for item in masks:
        assert {key.split(".masks.")[1].split(".")[0] for key in item if ".masks." in key} == {"planted", "predicted"}
    assert len(masks) > 60
    table = next(artifact for artifact in recorded["artifact"] if artifact["type"] == "run_table")
    images = [entry for entry in table["manifest"]["contents"] if entry["path"].endswith(".png")]
    assert len(images) > 18 and all(run / "wandb" in Path(entry["local_path"]).parents for entry in images)
    assert sum(path.is_file() for path in (run / "wandb").rglob("*")) < 320
    reports = [item["trainer/global_step"] for item in items if "media/report._type" in item]
    assert reports == sorted(pd.read_parquet(run / "measurements.parquet")["step"].unique())


def test_artifacts_settings_and_alerts_are_recorded(recorded):
    assert {"demo-plants", "demo-measurements"} <= {artifact["name"] for artifact in recorded["artifact"]}
    planted = next(artifact for artifact in recorded["artifact"] if artifact["name"] == "demo-plants")
    assert {"metadata.jsonl"} <= {entry["path"] for entry in planted["manifest"]["contents"]}
    settings = {name: value for config in recorded["config"] for name, value in config["update"].items()}
    assert {name: settings[name] for name in ("dataset", "n", "copies", "seed", "mitigation")} == {
        **{"dataset": "openmoji", "n": 24, "copies": 4, "seed": 0, "mitigation": "none"}
    }
    assert [alert["title"] for alert in recorded["alert"]] == ["demo finished"]


def test_workspaces_name_only_keys_of_a_run_and_all_headline_keys(recorded):
    numbers = {key for row in recorded["history"] for key in row["item"]} | {key for row in recorded["summary"] for key in row["update"]}
    numbers |= {key.removesuffix(f"_{NOT_MEMORIZED}") for key in numbers}  # no local plant is memorized in so short a run
    media = {key.removesuffix("._type") for key in numbers if key.endswith("._type")}
    settings = {name for config in recorded["config"] for name in config["update"]}
    named: set[str] = set()
    for view in VIEWS:
        named |= set(re.findall(r'"(?:[^"/]*[:.])?((?:[a-z]+)/[^"]+)"', specification(workspace("team", "project", view))))
    named = {name for name in named if fnmatch_any(name)}
    assert named <= numbers | media and set(GROUPED_BY) | set(SWEPT) <= settings
    assert {"memorized/global", "memorized/local", "train/loss", "emergence/global_step", "emergence/local_step"} <= named


def fnmatch_any(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*keys.GROUPS, "emergence/*"))


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
    main(["train", *FAST, *ENDS, "--name", "none", "--data.planting.copies", "[0]", "--trainer.max_steps", "2"])
    rows = pd.read_parquet("runs/none/measurements.parquet")
    assert rows[rows["measure"] == "plant_memorized"]["value"].sum() == 0
