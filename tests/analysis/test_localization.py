from pathlib import Path

import numpy as np
import pytest
import torch

from afterglow.analysis import localization
from afterglow.analysis.localization import MaskOptions, examples, judged_rows, localization_table, locate


@pytest.fixture
def parts(make_generations):
    """Two runs in two parts each: per run 4 local plants of 2 seeds and 2 phantoms, and a control without an outside."""

    def part(run, half):
        ids = torch.tensor([0, 0, 1, 1, 4, 4, 9]) + 2 * half
        kinds = ("local",) * 4 + ("phantom",) * 2 + ("control",)
        generations = make_generations(7, seed=10 * run + half, plant_id=ids, kind=kinds, caption=tuple(f"c{i}" for i in ids.tolist()))
        region = generations.region.clone()
        region[1::2] = region[0::2][: len(region[1::2])]  # both seeds of a plant share their region
        region[6] = True
        return type(generations)(**(vars(generations) | {"region": region, "seed": torch.tensor([0, 1] * 3 + [0])}))

    return [(Path(f"run{run}"), part(run, half)) for run in (0, 1) for half in (0, 1)]


def test_planted_masks_fed_in_as_maps_get_auc_and_iou_of_one(parts, monkeypatch):

    from afterglow.measures.registry import Measure

    oracle = Measure("oracle", lambda generations: generations.region[:, 0].float(), (), "1", "the truth")
    monkeypatch.setattr(localization, "maps", lambda generations: [oracle])
    rows = judged_rows(locate(parts))
    assert (rows["auc"] == 1).all() and (rows[rows["kind"] == "local"]["iou"] == 1).all()
    table = localization_table(rows)
    assert (table["value"] == 1).all() and (table["low"] == 1).all()


def test_what_is_judged_are_generations_with_an_outside_and_plants_are_means_over_seeds(parts):
    located = locate(parts, ["luminance", "all_ones", "score_difference.*"])
    assert len(located.about) == 2 * 2 * 6 and set(located.soft) == {
        "luminance",
        "all_ones",
        "score_difference.last",
        "score_difference.summed",
    }
    rows = judged_rows(located)
    assert rows[rows["kind"] == "phantom"]["iou"].isna().all() and rows[rows["kind"] == "local"]["iou"].notna().all()
    table = localization_table(rows)
    one = table[(table["map"] == "luminance") & (table["kind"] == "local") & (table["metric"] == "auc")].iloc[0]
    some = rows[(rows["map"] == "luminance") & (rows["kind"] == "local")]
    assert one["value"] == pytest.approx(some.groupby(["run", "plant_id"])["auc"].mean().groupby("run").mean().mean())
    assert one["plants"] == 8 and one["runs"] == 2 and one["low"] <= one["value"] <= one["high"]
    flat = table[(table["map"] == "all_ones") & (table["metric"] == "auc")]
    assert (flat["value"] == 0.5).all() and (flat["high"] == 0.5).all()
    by_shape = localization_table(rows, ["kind", "shape"])
    assert set(by_shape["shape"]) == {"blob"}


def test_thresholds_come_from_other_plants_of_the_same_run(parts):
    located = locate(parts, ["luminance"])
    before = judged_rows(located)
    own = [row for row, about in enumerate(located.about) if about["run"] == "run0" and about["plant_id"] == 0]
    values = torch.cat(located.soft["luminance"])
    others = [row for row, about in enumerate(located.about) if about["run"] == "run1"]
    values[others] *= 7  # another run's maps may have any scale
    located.soft["luminance"] = [values]
    after = judged_rows(located)
    np.testing.assert_array_equal(before.loc[own, "iou"], after.loc[own, "iou"])


def test_options_change_maps_before_they_are_judged(parts):
    plain = judged_rows(locate(parts, ["score_difference.last"]))
    scaled = judged_rows(locate(parts, ["score_difference.last"], MaskOptions(normalize="minmax")))
    assert plain["auc"].tolist() == pytest.approx(scaled["auc"].tolist(), abs=0.01)  # a map's own scale does not order its pixels
    assert plain["iou"].tolist() != scaled["iou"].tolist()
    smooth = judged_rows(locate(parts, ["score_difference.last"], MaskOptions(sigma=2.0)))
    assert plain["auc"].tolist() != smooth["auc"].tolist()


def test_threshold_rules_that_look_at_no_truth(parts):
    located = locate(parts, ["luminance"])
    values, regions = torch.cat(located.soft["luminance"]).float(), torch.cat(located.regions)[:, 0]
    for options, levels in (
        (MaskOptions(threshold="fixed", value=0.5), [0.5] * len(values)),
        (MaskOptions(threshold="quantile", value=0.7), [float(np.quantile(soft.numpy(), 0.7)) for soft in values]),
    ):
        rows = judged_rows(located, options)
        for row, level in enumerate(levels):
            called = values[row] > level
            share = (called & regions[row]).sum() / (called | regions[row]).sum()
            if rows.loc[row, "kind"] == "local":
                assert rows.loc[row, "iou"] == pytest.approx(share.item())
    assert judged_rows(located, MaskOptions(threshold="otsu"))["iou"].notna().any()
    with pytest.raises(ValueError, match="not 'best'"):
        MaskOptions(threshold="best")


def test_examples_are_the_best_the_middle_and_the_worst(parts):
    rows = judged_rows(locate(parts, ["luminance"]))
    chosen = examples(rows, "luminance")["auc"].tolist()
    every = sorted(rows[rows["kind"] == "local"]["auc"], reverse=True)
    assert chosen == [every[0], every[len(every) // 2], every[-1]]


def test_evidence_without_regions_is_refused(make_generations):
    with pytest.raises(ValueError, match="No generation has a planted region"):
        locate([(Path("a"), make_generations(2, region=None))])
