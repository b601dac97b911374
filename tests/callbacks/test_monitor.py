import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from fast_training import FAST, OVERLAYS
from safetensors.torch import load_file

from afterglow.cli import main
from afterglow.models.io import load_denoiser
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

ROOT = Path(__file__).parent.parent.parent


EVERYTHING = ["--monitor.final_measures", "['*']", "--monitor.curvature_vectors", "1", "--monitor.early_fraction", "0.3"]
COSTLY = {"curvature_difference", "early_difference.last", "early_difference.summed", "patch_nearness", "self_attention", "cross_seed_std"}


def trained(folder: Path, *words: str) -> Path:
    """A run with all measures at its last evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["train", *words, *EVERYTHING, "--monitor.num_audited", "4", "--name", "x"])
    return folder / "runs" / "x"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    short = ("--monitor.first_fraction", "1", "--optimizer.learning_rate", "0.01", "--optimizer.warmup_steps", "0")
    return trained(tmp_path_factory.mktemp("probe"), *FAST, *short)


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """A run of a model without captions."""
    recipe = ["--config", str(ROOT / "configs/openmoji_ddpm.yaml"), *OVERLAYS, "--trainer.max_steps", "2"]
    return trained(tmp_path_factory.mktemp("free"), *recipe)


def images_of(model, run: Path, plant_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One plant's images of the last probe, and what a model makes of the same caption and seeds."""
    monitor = load_file(run / "maps" / "step=6.safetensors")
    rows = monitor["plant_id"] == plant_id
    caption = pd.read_parquet(run / "measurements.parquet").set_index("plant_id")["caption"][plant_id].iloc[0]
    seeds = monitor["seed"][rows].tolist()
    return monitor["images"][rows], generate(model.eval(), [caption] * len(seeds), seeds, Sampler(steps=2), CaptureConfig()).images


def test_monitor_evaluates_the_averaged_weights(run):
    seen, averaged = images_of(load_denoiser(run / "checkpoints" / "last.ckpt"), run, 0)
    assert (seen.int() - averaged.int()).abs().max() <= 1
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    raw = load_denoiser(run / "checkpoints" / "last.ckpt")
    raw.load_state_dict({name.removeprefix("model."): value for name, value in checkpoint["current_model_state"].items()})
    _, others = images_of(raw, run, 0)
    assert (seen.int() - others.int()).abs().max() > 1


def test_monitor_last_evaluation_adds_raw_weights_and_controls_in_each_shape(run):
    rows = pd.read_parquet(run / "measurements.parquet")
    last, inner = rows[rows["step"] == 6], rows[rows["step"] < 6]
    assert {"ema_off.memorized", "ema_off.plant_memorized"} <= set(last["measure"]) and not inner["measure"].str.startswith(
        "ema_off."
    ).any()
    shapes = {name for name in last["measure"] if name.startswith("memorized_in.")}
    assert len(shapes) == 2 and set(last[last["measure"].isin(shapes)]["kind"]) == {"control"}
    assert set(rows[rows["measure"] == "denoising_loss"]["kind"]) == {"heldout", "control"}


def test_monitor_audit_is_on_the_page_with_file_names(run, free):
    for folder in (run, free):
        table, page = pd.read_parquet(folder / "audit/audit.parquet"), (folder / "report.html").read_text()
        last = table[table["checkpoint"] == table["checkpoint"].iloc[-1]]
        assert "Which training images are copied?" in page and last["file_name"].sort_values().iloc[0] in page
        assert last["file_name"].str.match(r"(global|local|decoy|tint) plant \d+, sample").any()
        assert "of 24 times" not in page and page.count('id="audit-cards"') == 1


def test_monitor_unconditional_model_has_unprompted_rows(free):
    rows = pd.read_parquet(free / "measurements.parquet")
    assert (rows[rows["measure"] == "memorized"]["kind"] == "unprompted").all() and len(rows[rows["measure"] == "memorized"]) == 2 * 8 + 8
    assert not rows["measure"].str.startswith(("guidance_norm", "auc.end_token")).any() and (free / "report.html").exists()
    completed = rows[rows["measure"] == "plant_memorized.outpainted"].groupby(["kind", "step"]).size()
    assert completed.loc["local"].tolist() == [2] * 3 and completed.loc["phantom"].tolist() == [4] * 3
    assert completed.loc["control"].to_dict() == completed.loc["heldout"].to_dict() == {2: 4}  # at the last evaluation only
    assert set(json.loads((free / "emergence.json").read_text())["outpainted_fresh"]["kinds"]) == {"local", "phantom"}


def test_monitor_last_evaluation_measures_everything_and_keeps_early_weights(run):
    rows = pd.read_parquet(run / "measurements.parquet")
    last = rows[rows["step"] == 6]
    of_maps = {name.partition(".")[2] for name in last["measure"] if name.startswith("auc.")}
    assert of_maps >= COSTLY and {"sharpness", "tiled_l2", "memattn_d", "ld_neutral.be.all"} <= set(last["measure"])
    inner = set(rows[rows["step"] < 6]["measure"])
    assert not inner & {"sharpness", "memattn_d"} and "guidance_norm.all" in inner
    assert (run / "checkpoints/early.safetensors").exists()
    assert not last["value"].isna().any()


def test_monitor_unconditional_model_has_all_measures_without_text(free):
    found = load_file(free / "maps/step=2.safetensors")
    assert {f"map/{name}" for name in COSTLY - {"curvature_difference"}} <= set(found)
    assert "map/curvature_difference" not in found and not any("end_token" in name for name in found)


def test_monitor_unknown_measure_is_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["train", *FAST, "--name", "x", "--monitor.measures", "[magnitud]"])
    assert stop.value.code == 2 and "monitor.measures: no measure is named 'magnitud'" in capsys.readouterr().err
