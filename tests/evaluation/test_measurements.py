from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.measurements import extracted_rows, measure_generations, region_rows, shape_rows
from afterglow.planting.targets import Target


def test_measure_generations_gives_one_row_per_generation_and_measure(generations):
    result = measure_generations(generations)
    rows, maps = result.measurements, result.maps
    assert rows["value"].notna().all() and not rows.duplicated(["plant_id", "seed", "measure"]).any()
    memorized = rows[rows["measure"] == "memorized"].groupby("kind")["value"].mean()
    assert memorized.to_dict() == {"control": 0.0, "global": 1.0, "local": 1.0, "phantom": 0.0}
    plants = rows[(rows["seed"] == ALL_SEEDS) & (rows["measure"] == "plant_memorized")]
    assert len(plants) == 8 and set(maps) == {name.removeprefix("auc.") for name in rows["measure"] if name.startswith("auc.")} - {
        "mask_prior"
    }


def test_measure_generations_localizes_regions_and_thresholds_local_plants(generations):
    result = measure_generations(generations)
    rows, thresholds = result.measurements, result.thresholds
    assert set(rows[rows["measure"].str.startswith("auc.")]["kind"]) == {"local", "phantom"}
    assert set(rows[rows["measure"].str.startswith("iou.")]["kind"]) == {"local"}
    bright = rows[rows["measure"] == "auc.end_token.last.first_eos.be"]["value"]
    assert len(bright) == 8 and (bright == 1).all()
    assert np.allclose(rows[rows["measure"] == "auc.all_ones"]["value"], 0.5)
    assert (rows[rows["measure"] == "iou.end_token.last.first_eos.all"]["value"] == 1).all()
    assert torch.isfinite(thresholds["end_token.last.first_eos.all"]).all()


def test_measure_generations_local_plant_with_constant_background_is_local_to_global(generations):
    rows = measure_generations(generations).measurements
    found = rows[rows["measure"] == "local_to_global"]
    assert (found["value"] == 1).all() and len(found) == 2 and (rows[rows["measure"] == "outside_diversity"]["value"] == 0).all()


def test_measure_generations_writes_the_cluster_size_of_controls_only(generations):
    assert "cluster_size" not in set(measure_generations(generations).measurements["measure"])  # generations of an earlier version
    sizes = torch.arange(len(generations)) // 2 + 1
    rows = measure_generations(generations.with_extras(cluster_size=sizes)).measurements
    found = rows[rows["measure"] == "cluster_size"]
    assert found[["plant_id", "kind", "seed", "value"]].to_numpy().tolist() == [[6, "control", -1, 7.0], [7, "control", -1, 8.0]]


def test_shape_rows_name_the_shape(generations):
    rows = shape_rows(generations[[12, 13, 14, 15]], "left half")
    assert set(rows["measure"]) == {"memorized_in.left half"} and len(rows) == 4 and (rows["value"] == 0).all()


def test_region_rows_global_plant_copied_in_its_region_only_is_memorized(generations):
    whole = generations[[0, 1, 2, 3]]
    images = whole.images.clone()
    images[:2, :, :, 4:] = 255 - images[:2, :, :, 4:]  # the first plant is copied in its left half only
    mask = torch.zeros_like(whole.eval_mask)
    mask[..., :4] = True
    rows = region_rows(replace(whole, images=images, eval_mask=mask))
    verdicts = rows[rows["measure"].isin(["memorized.region", "plant_memorized.region"])]
    assert (verdicts["value"] == 1).all() and len(verdicts) == 6
    inside = rows.pivot_table(index=["plant_id", "seed"], columns="measure", values="value", dropna=False).loc[(slice(None), [0, 1]), :]
    np.testing.assert_array_equal(inside["calibrated_l2.region"] < 1, inside["memorized.region"] == 1)
    everything = measure_generations(replace(whole, images=images)).measurements
    assert everything[everything["measure"] == "plant_memorized"]["value"].tolist() == [0, 1]


def test_extracted_rows_count_matched_generations(generations):
    plants = [Target(number, "global", "", number, *[np.ones((1, 8, 8), dtype=bool)] * 2, "whole") for number in (0, 1, 77)]
    rows = extracted_rows(generations[[0, 1, 2]], plants, 10)
    values = rows.set_index(["measure", "plant_id"])["value"]
    assert values["extracted"].tolist() == [0.2, 0.1, 0.0] and values["plant_memorized"].tolist() == [1, 1, 0]
    assert (extracted_rows(generations[[]], plants, 10)["value"] == 0).all()


def test_measure_generations_without_ground_truth_has_no_memorized(generations):
    bare = replace(generations, references=None, eval_mask=None, region=None, neighbors=None)
    result = measure_generations(bare, ["guidance_norm.all", "end_token.*"])
    assert set(result.measurements["measure"]) == {"guidance_norm.all"} and len(result.maps) > 0 and result.thresholds == {}
    assert measure_generations(bare, ["distance"]).measurements.empty


def test_save_writes_maps_and_masks_of_all_kinds_but_controls(generations, tmp_path):
    result = measure_generations(generations)
    result.save(tmp_path / "maps" / "step=3.safetensors")
    found = load_file(tmp_path / "maps" / "step=3.safetensors")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["step=3.safetensors"]
    assert len(found["images"]) == 12 and torch.equal(found["images"], generations.images[:12])
    for name in result.maps:
        assert found[f"map/{name}"].dtype == torch.float16 and len(found[f"map/{name}"]) == 12
        assert found[f"mask/{name}"].shape == (12, 8, 8)


def test_mask_is_the_map_above_its_threshold(generations):
    result = measure_generations(generations)
    rows = result.rows_of("local")
    assert rows == [4, 5, 6, 7]
    assert torch.equal(result.mask("end_token.last.first_eos.be")[rows], generations.region[rows, 0])
