import numpy as np
import torch

from afterglow.measures.summary import ALL_SEEDS
from afterglow.probes.judge import judge, memorized_in


def test_every_number_of_every_generation_once(evidence):
    rows, maps, thresholds = judge(evidence)
    assert rows["value"].notna().all() and not rows.duplicated(["plant_id", "seed", "measure"]).any()
    memorized = rows[rows["measure"] == "memorized"].groupby("kind")["value"].mean()
    assert memorized.to_dict() == {"control": 0.0, "global": 1.0, "local": 1.0, "phantom": 0.0}
    plants = rows[(rows["seed"] == ALL_SEEDS) & (rows["measure"] == "plant_memorized")]
    assert len(plants) == 8 and set(maps) == {name.removeprefix("auc.") for name in rows["measure"] if name.startswith("auc.")}


def test_only_what_has_a_region_is_localised_and_only_local_plants_have_an_overlap(evidence):
    rows, _, thresholds = judge(evidence)
    assert set(rows[rows["measure"].str.startswith("auc.")]["kind"]) == {"local", "phantom"}
    assert set(rows[rows["measure"].str.startswith("iou.")]["kind"]) == {"local"}
    bright = rows[rows["measure"] == "auc.end_token.last.first_eos.be"]["value"]
    assert len(bright) == 8 and (bright == 1).all()
    assert np.allclose(rows[rows["measure"] == "auc.all_ones"]["value"], 0.5)
    assert (rows[rows["measure"] == "iou.end_token.last.first_eos.all"]["value"] == 1).all()
    assert torch.isfinite(thresholds["end_token.last.first_eos.all"]).all()


def test_a_local_plant_whose_rest_never_changes_is_copied_whole(evidence):
    rows, _, _ = judge(evidence)
    found = rows[rows["measure"] == "local_to_global"]
    assert (found["value"] == 1).all() and len(found) == 2 and (rows[rows["measure"] == "outside_diversity"]["value"] == 0).all()


def test_controls_in_the_mask_of_a_shape(evidence):
    rows = memorized_in(evidence[[12, 13, 14, 15]], "left half")
    assert set(rows["measure"]) == {"memorized_in.left half"} and len(rows) == 4 and (rows["value"] == 0).all()
