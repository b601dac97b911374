from dataclasses import replace

import numpy as np
import torch

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.evaluation.measurements import captured, in_region, judge, memorized_in
from afterglow.planting.targets import Target


def test_every_number_of_every_generation_once(generations):
    rows, maps, thresholds = judge(generations)
    assert rows["value"].notna().all() and not rows.duplicated(["plant_id", "seed", "measure"]).any()
    memorized = rows[rows["measure"] == "memorized"].groupby("kind")["value"].mean()
    assert memorized.to_dict() == {"control": 0.0, "global": 1.0, "local": 1.0, "phantom": 0.0}
    plants = rows[(rows["seed"] == ALL_SEEDS) & (rows["measure"] == "plant_memorized")]
    assert len(plants) == 8 and set(maps) == {name.removeprefix("auc.") for name in rows["measure"] if name.startswith("auc.")}


def test_only_what_has_a_region_is_localized_and_only_local_plants_have_an_overlap(generations):
    rows, _, thresholds = judge(generations)
    assert set(rows[rows["measure"].str.startswith("auc.")]["kind"]) == {"local", "phantom"}
    assert set(rows[rows["measure"].str.startswith("iou.")]["kind"]) == {"local"}
    bright = rows[rows["measure"] == "auc.end_token.last.first_eos.be"]["value"]
    assert len(bright) == 8 and (bright == 1).all()
    assert np.allclose(rows[rows["measure"] == "auc.all_ones"]["value"], 0.5)
    assert (rows[rows["measure"] == "iou.end_token.last.first_eos.all"]["value"] == 1).all()
    assert torch.isfinite(thresholds["end_token.last.first_eos.all"]).all()


def test_a_local_plant_whose_rest_never_changes_is_copied_whole(generations):
    rows, _, _ = judge(generations)
    found = rows[rows["measure"] == "local_to_global"]
    assert (found["value"] == 1).all() and len(found) == 2 and (rows[rows["measure"] == "outside_diversity"]["value"] == 0).all()


def test_controls_in_the_mask_of_a_shape(generations):
    rows = memorized_in(generations[[12, 13, 14, 15]], "left half")
    assert set(rows["measure"]) == {"memorized_in.left half"} and len(rows) == 4 and (rows["value"] == 0).all()


def test_a_whole_plant_that_is_copied_in_its_region_alone(generations):
    whole = generations[[0, 1, 2, 3]]
    images = whole.images.clone()
    images[:2, :, :, 4:] = 255 - images[:2, :, :, 4:]  # the first plant is copied in its left half only
    mask = torch.zeros_like(whole.eval_mask)
    mask[..., :4] = True
    rows = in_region(replace(whole, images=images, eval_mask=mask))
    assert set(rows["measure"]) == {"memorized.region", "plant_memorized.region"} and (rows["value"] == 1).all() and len(rows) == 6
    everything = judge(replace(whole, images=images))[0]
    assert everything[everything["measure"] == "plant_memorized"]["value"].tolist() == [0, 1]


def test_a_plant_is_captured_by_one_generation_and_others_are_not(generations):
    plants = [Target(number, "global", "", number, *[np.ones((1, 8, 8), dtype=bool)] * 2, "whole") for number in (0, 1, 77)]
    rows = captured(generations[[0, 1, 2]], plants, 10)
    values = rows.set_index(["measure", "plant_id"])["value"]
    assert values["extracted"].tolist() == [0.2, 0.1, 0.0] and values["plant_memorized"].tolist() == [1, 1, 0]
    assert (captured(generations[[]], plants, 10)["value"] == 0).all()
