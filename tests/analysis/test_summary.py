import numpy as np
import pandas as pd
import pytest

from afterglow.analysis.summary import ALL_SEEDS, MEASUREMENT_COLUMNS, plant_means, summarize_evaluation, with_families


def table(*rows):
    """Rows (plant_id, kind, seed, measure, value) as the table of one probe."""
    frame = pd.DataFrame(rows, columns=["plant_id", "kind", "seed", "measure", "value"])
    return frame.assign(step=7, epoch=0.5, seconds=1.0, caption="an image")[MEASUREMENT_COLUMNS]


def probe(magnitudes, *, copied):
    """One row of magnitude and memorized a generation; magnitudes, copied: {(plant_id, kind): values of its seeds}."""
    rows = []
    for (number, kind), values in magnitudes.items():
        for seed, (value, is_copy) in enumerate(zip(values, copied[number, kind], strict=True)):
            rows += [(number, kind, seed, "guidance_norm.all", value), (number, kind, seed, "memorized", is_copy)]
    return table(*rows)


def test_means_are_over_seeds_first_and_plants_second():
    rows = table((0, "global", 0, "distance", 1.0), (0, "global", 1, "distance", 3.0), (1, "global", 0, "distance", 8.0))
    assert plant_means(rows)["value"].tolist() == [2.0, 8.0]
    assert summarize_evaluation(rows) == {"measure/global/distance": 5.0}


def test_the_kinds_are_kept_apart_and_the_fraction_memorized_has_its_own_key():
    rows = table(
        (0, "global", ALL_SEEDS, "plant_memorized", 1.0),
        (1, "global", ALL_SEEDS, "plant_memorized", 0.0),
        (2, "global", ALL_SEEDS, "plant_memorized", 0.0),
        (3, "phantom", ALL_SEEDS, "plant_memorized", 0.0),
    )
    assert summarize_evaluation(rows) == pytest.approx(
        {
            "memorized/global": 1 / 3,
            "memorized/phantom": 0.0,
        }
    )


def test_copies_of_controls_with_near_duplicates_are_counted_apart_and_detectors_keep_them():
    rows = []
    for number, size, copied in ((5, 1.0, 0.0), (6, 3.0, 1.0), (7, 3.0, 1.0), (8, 1.0, 0.0)):
        rows += [(number, "control", ALL_SEEDS, "cluster_size", size), (number, "control", ALL_SEEDS, "plant_memorized", copied)]
        rows += [(number, "control", ALL_SEEDS, "ema_off.plant_memorized", copied), (number, "control", 0, "memorized_in.box", copied)]
        rows += [(number, "control", 0, "calibrated_l2", 1.5 - copied), (number, "control", 0, "guidance_norm.all", float(number))]
    rows += [(6, "heldout", ALL_SEEDS, "plant_memorized", 0.0), (6, "control", ALL_SEEDS, "denoising_loss", 0.5)]
    whole = table(*rows).set_index(np.zeros(len(rows), dtype=int))  # the index says nothing
    numbers = summarize_evaluation(whole)
    for name in ("memorized/KIND", "measure/KIND/ema_off.plant_memorized", "measure/KIND/memorized_in.box"):
        assert [numbers[name.replace("KIND", kind)] for kind in ("control", "control_family")] == [0.0, 1.0]
    assert (numbers["measure/control/calibrated_l2"], numbers["measure/control_family/calibrated_l2"]) == (1.5, 0.5)
    assert numbers["measure/control/guidance_norm.all"] == 6.5 and "measure/control_family/guidance_norm.all" not in numbers
    assert numbers["measure/control/denoising_loss"] == 0.5 and numbers["memorized/heldout"] == 0.0
    assert with_families(with_families(whole)).equals(with_families(whole))


def test_the_sizes_of_clusters_can_come_from_elsewhere():
    rows = table(*((number, "control", ALL_SEEDS, "plant_memorized", 0.0) for number in (5, 6)))
    assert with_families(rows)["kind"].tolist() == ["control"] * 2
    assert with_families(rows, {5: 1, 6: 2, 7: 9})["kind"].tolist() == ["control", "control_family"]


def test_localization_of_local_plants_has_the_plain_name_and_that_of_others_their_kinds():
    rows = table(
        (0, "local", 0, "auc.luminance", 0.9),
        (0, "local", 1, "auc.luminance", 0.7),
        (0, "local", 0, "iou.end_token.last.first_eos.be", 0.4),
        (1, "tint", 0, "auc.luminance", 0.6),
        (2, "phantom", 0, "auc.luminance", 0.5),
    )
    assert summarize_evaluation(rows) == pytest.approx(
        {
            "localization/luminance/auc": 0.8,
            "localization/luminance/auc_tint": 0.6,
            "localization/luminance/auc_phantom": 0.5,
            "localization/end_token.last.first_eos.be/iou": 0.4,
        }
    )


def test_maps_of_local_plants_that_are_not_memorized_stand_apart():
    rows = table(
        (0, "local", 0, "auc.luminance", 0.9),
        (1, "local", 0, "auc.luminance", 0.3),
        (1, "local", 0, "iou.luminance", 0.2),
        *((number, "local", ALL_SEEDS, "plant_memorized", 1.0 - number) for number in (0, 1)),
    )
    found = summarize_evaluation(rows)
    assert found["localization/luminance/auc"] == 0.9 and found["localization/luminance/auc_local_not_memorized"] == 0.3
    assert found["localization/luminance/iou_local_not_memorized"] == 0.2 and found["memorized/local"] == 0.5


def test_planted_against_each_negative_apart_and_memorized_against_the_rest():
    magnitudes = {(0, "local"): [5, 7], (1, "local"): [1, 3], (2, "phantom"): [1, 1], (3, "phantom"): [8, 8], (4, "decoy"): [0, 0]}
    copied = {(0, "local"): [1, 1], (1, "local"): [0, 1], (2, "phantom"): [0, 0], (3, "phantom"): [0, 0], (4, "decoy"): [0, 0]}
    found = summarize_evaluation(probe(magnitudes, copied=copied))

    def auc(high, low):
        return np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in high for b in low])

    # plants by the means over their seeds: 6 and 2 against phantoms at 1 and 8, and against a decoy at 0
    assert found["detection/guidance_norm.all/local_vs_phantom/auc"] == auc([6, 2], [1, 8]) == 0.5
    assert found["detection/guidance_norm.all/local_vs_decoy/auc"] == 1.0
    # generations one by one: the seed of plant 1 that is not a copy is a negative
    assert found["detection/guidance_norm.all/memorized_vs_rest/auc"] == pytest.approx(auc([5, 7, 3], [1, 1, 1, 8, 8, 0, 0]))
    comparisons = {key.split("/")[2] for key in found if key.startswith("detection/guidance_norm.all/")}
    assert comparisons == {"local_vs_phantom", "local_vs_decoy", "memorized_vs_rest"}


def test_a_score_that_is_undefined_for_a_sample_leaves_it_out():
    scores = {0: 0.2, 1: 0.1, 2: 0.9, 3: np.nan}
    rows = table(*((number, "control", 0, "tiled_l2", score) for number, score in scores.items()))
    copied = table(*((number, "control", 0, "memorized", float(number < 2)) for number in scores))
    assert summarize_evaluation(pd.concat([rows.dropna(), copied]))["detection/tiled_l2/memorized_vs_rest/auc"] == 0


@pytest.mark.parametrize("answer", [0, 1])
def test_detection_of_copies_is_absent_where_all_or_none_are(answer):
    magnitudes = {(0, "global"): [5, 7], (1, "control"): [1, 3]}
    found = summarize_evaluation(probe(magnitudes, copied={key: [answer] * 2 for key in magnitudes}))
    assert "detection/guidance_norm.all/global_vs_control/auc" in found
    assert not any("memorized_vs_rest" in key for key in found)


def test_only_detectors_are_evaluated_as_detectors():
    rows = [
        (n, kind, 0, name, float(n)) for n, kind in enumerate(("global", "phantom")) for name in ("distance", "correlation", "entropy.last")
    ]
    rows += [(n, kind, 0, "memorized", float(kind == "global")) for n, kind in enumerate(("global", "phantom"))]
    found = summarize_evaluation(table(*rows))
    assert {key.split("/")[1].split(".")[0] for key in found if key.startswith("detection/")} == {"entropy"}
