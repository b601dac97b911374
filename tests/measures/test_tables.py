import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.analysis.detection import evaluate_detectors
from afterglow.analysis.summary import read_measurements
from afterglow.generations import Generations
from afterglow.measures.tables import measurement_rows, read_parts, write_measurements


@pytest.fixture
def collection(tmp_path, make_generations):
    """Two parts of three generations."""
    for part in (0, 1):
        generations = make_generations(3, seed=part, plant_id=torch.arange(3) + 3 * part)
        generations.save(tmp_path / "generations" / f"part={part:05d}")
    return tmp_path / "generations"


def change(part, **fields):
    generations = Generations.load(part)
    for file in part.glob("*.*"):
        file.unlink()
    dataclasses.replace(generations, **fields).save(part)


def test_the_measurement_rows_a_stream_are_those_of_its_parts(collection):
    count = write_measurements([collection], collection / "m.parquet")
    rows = read_measurements(collection / "m.parquet")
    assert count == len(rows) and set(rows["run"]) == {"generations"} and set(rows["plant_id"]) == set(range(6))
    expected = pd.concat([measurement_rows(generations) for _, generations in read_parts([collection])], ignore_index=True)
    np.testing.assert_array_equal(rows["value"], expected["value"].astype(np.float32))
    assert {"guidance_norm.all", "auc.luminance", "calibrated_l2"} <= set(rows["measure"]) and set(rows["shape"]) == {"blob"}


def test_only_what_is_asked_for(collection):
    write_measurements([collection], collection / "m.parquet", ["guidance_norm.*"])
    assert set(read_measurements(collection / "m.parquet")["measure"]) == {"guidance_norm.1", "guidance_norm.all"}


def test_what_the_generations_cannot_tell_is_said(collection, caplog):
    for part in collection.glob("part=*"):
        change(part, end_attention=None, provenance={})
    write_measurements([collection], collection / "m.parquet", ["guidance_norm.*", "end_token.*"])
    assert "No rows for 'end_token.*'" in caplog.text and "guidance_norm" not in caplog.text
    assert not read_measurements(collection / "m.parquet")["measure"].str.contains("end_token").any()


def test_nan_is_named(collection):
    part = collection / "part=00001"
    guidance = Generations.load(part).guidance.clone()
    guidance[2, 1, 0, 3, 3] = torch.nan
    change(part, guidance=guidance)
    with pytest.raises(ValueError, match="NaN or infinity: guidance of 'image 1', seed 0"):
        write_measurements([collection], collection / "m.parquet")
    assert not (collection / "m.parquet").exists()


def test_parts_of_different_samplers_are_refused_unless_asked(collection):
    change(collection / "part=00001", provenance={"steps": 7, "scheduler": "EulerDiscreteScheduler"})
    with pytest.raises(ValueError, match=r"part=00001' and .*part=00000' differ in scheduler, steps"):
        list(read_parts([collection]))
    assert len(list(read_parts([collection], mixed=True))) == 2


def test_generations_without_truth_has_its_scores_only(tmp_path, make_generations):
    bare = {name: None for name in ("references", "eval_mask", "region", "neighbors")}
    rows = measurement_rows(make_generations(2, **bare))
    assert "guidance_norm.all" in set(rows["measure"]) and not rows["measure"].str.startswith(("auc.", "calibrated_l2")).any()


def test_lists_of_captions_that_one_model_was_asked_for_are_told_apart(tmp_path, make_generations):
    for folder, kinds in (("memorized", ("global", "local", "local")), ("others", ("control",) * 3)):
        generations = make_generations(3, plant_id=torch.arange(3), kind=kinds)
        generations = dataclasses.replace(generations, provenance={**generations.provenance, "prompts": 3, "origin": "sd14", "model": "x"})
        generations.save(tmp_path / folder / "part=00000")
    write_measurements([tmp_path / "memorized", tmp_path / "others"], tmp_path / "m.parquet", ["guidance_norm.all"])
    rows = read_measurements(tmp_path / "m.parquet")
    assert set(rows["run"]) == {"sd14"} and sorted(rows["plant_id"]) == list(range(6))
    table = evaluate_detectors(rows, None, [("local", "control")], [1])
    assert set(table["positives"]) == {2} and set(table["negatives"]) == {3}
