from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.analysis import localization
from afterglow.analysis.localization import chosen_layers, collect_maps, example_rows, localization_table, map_rows
from afterglow.functional.localization import map_auc, mask_prior, permuted_auc
from afterglow.functional.statistics import exact_interval
from afterglow.kinds import NOT_MEMORIZED


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
        references = generations.references.clone()
        references[:4] = generations.images[:4]  # the local plants are copied
        seeds = torch.tensor([0, 1] * 3 + [0])
        return replace(generations, region=region, seed=seeds, references=references)

    return [(Path(f"run{run}"), part(run, half)) for run in (0, 1) for half in (0, 1)]


def test_planted_masks_fed_in_as_maps_get_auc_and_iou_of_one(parts, monkeypatch):

    from afterglow.measures.registry import Measure

    oracle = Measure("oracle", lambda generations: generations.region[:, 0].float(), (), "1", "the truth")
    monkeypatch.setattr(localization, "available_maps", lambda generations: [oracle])
    rows = map_rows(collect_maps(parts))
    assert (rows[rows["map"] == "oracle"]["auc"] == 1).all() and (rows[rows["map"] == "mask_prior"]["auc"] < 1).any()
    rows = rows[rows["map"] == "oracle"]
    assert (rows[rows["kind"] == "local"]["iou"] == 1).all()
    table = localization_table(rows)
    table = table[table["metric"] != "permuted_auc"]
    assert (table["value"] == 1).all() and (table["high"] == 1).all()
    expected = [exact_interval(count, count)[0] for count in table["plants"]]
    assert table["low"].tolist() == pytest.approx(expected)


def test_what_is_evaluated_are_generations_with_an_outside_and_plants_are_means_over_seeds(parts):
    collected = collect_maps(parts, ["luminance", "all_ones", "score_difference.*"])
    assert len(collected.samples) == 2 * 2 * 6 and set(collected.maps) == {
        "luminance",
        "all_ones",
        "score_difference.last",
        "score_difference.summed",
    }
    rows = map_rows(collected)
    assert rows[rows["kind"] == "phantom"]["iou"].isna().all()
    assert rows[(rows["kind"] == "local") & rows["map"].isin(collected.maps)]["iou"].notna().all()
    table = localization_table(rows)
    one = table[(table["map"] == "luminance") & (table["kind"] == "local") & (table["metric"] == "auc")].iloc[0]
    some = rows[(rows["map"] == "luminance") & (rows["kind"] == "local")]
    assert one["value"] == pytest.approx(some.groupby(["run", "plant_id"])["auc"].mean().groupby("run").mean().mean())
    assert one["plants"] == 8 and one["runs"] == 2 and one["low"] <= one["value"] <= one["high"]
    flat = table[(table["map"] == "all_ones") & (table["metric"] == "auc")]
    assert (flat["value"] == 0.5).all() and (flat["high"] == 0.5).all()
    by_shape = localization_table(rows, ["kind", "shape"])
    assert set(by_shape["shape"]) == {"blob"}


def test_local_plants_that_are_not_memorized_stand_apart(parts):
    collected = collect_maps(parts, ["luminance"])
    for sample in collected.samples:
        if sample["run"] == "run0" and sample["plant_id"] == 0:
            sample["memorized"] = 0.0
    rows, before = map_rows(collected), map_rows(collect_maps(parts, ["luminance"]))
    apart = rows[rows["kind"] == NOT_MEMORIZED]
    assert set(zip(apart["run"], apart["plant_id"], strict=True)) == {("run0", 0)}
    np.testing.assert_array_equal(rows["iou"], before["iou"])  # thresholds are chosen on all local plants
    table = localization_table(rows[rows["map"] == "luminance"]).set_index(["kind", "metric"])
    assert table.loc[("local", "auc"), "plants"] == 7 and table.loc[(NOT_MEMORIZED, "auc"), "plants"] == 1


def test_thresholds_come_from_other_plants_of_the_same_run(parts):
    collected = collect_maps(parts, ["luminance"])
    before = map_rows(collected)
    own = [row for row, about in enumerate(collected.samples) if about["run"] == "run0" and about["plant_id"] == 0]
    values = torch.cat(collected.maps["luminance"])
    others = [row for row, about in enumerate(collected.samples) if about["run"] == "run1"]
    values[others] *= 7  # another run's maps may have any scale
    collected.maps["luminance"] = [values]
    after = map_rows(collected)
    np.testing.assert_array_equal(before.loc[own, "iou"], after.loc[own, "iou"])


def test_controls_stay_within_a_run(parts):
    collected = collect_maps(parts, ["luminance"])
    rows = map_rows(collected).set_index("map")
    np.testing.assert_allclose(rows.loc["luminance.inverted", "auc"], 1 - rows.loc["luminance", "auc"])
    own = [row for row, about in enumerate(collected.samples) if about["run"] == "run1" and about["kind"] == "local"]
    regions, values = torch.cat(collected.regions)[own], torch.cat(collected.maps["luminance"])[own]
    samples = pd.DataFrame(collected.samples).iloc[own]
    priors = mask_prior(regions[::2])  # two seeds follow each other
    expected = map_auc(priors.repeat_interleave(2, dim=0), regions)
    found = rows.loc["mask_prior"].query("run == 'run1'")
    np.testing.assert_allclose(found["auc"], expected)
    permuted = rows.loc["luminance"].query("run == 'run1' and kind == 'local'")["permuted_auc"]
    np.testing.assert_allclose(permuted, permuted_auc(values, regions, samples["plant_id"].tolist(), samples["shape"].tolist()))
    assert rows.loc["luminance"].query("kind == 'phantom'")["permuted_auc"].isna().all()


def test_layers_are_chosen_on_other_seeds():
    values = {("a", "end_token.x"): 0.9, ("a", "end_token.y"): 0.5, ("b", "end_token.x"): 0.4, ("b", "end_token.y"): 0.6}
    values |= {("c", "end_token.x"): 0.8, ("c", "end_token.y"): 0.3, ("a", "luminance"): 1.0}
    rows = pd.DataFrame([{"run": run, "map": name, "kind": "local", "plant_id": 0, "auc": auc} for (run, name), auc in values.items()])
    found = chosen_layers(rows, {"a": 0, "c": 0})  # b has a seed of its own
    assert found.values.tolist() == [[0, "end_token.y", 0.4], ["b", "end_token.x", 0.4]]
    assert chosen_layers(rows, {"a": 0, "b": 0, "c": 0}).empty


def test_examples_are_the_best_the_middle_and_the_worst(parts):
    rows = map_rows(collect_maps(parts, ["luminance"]))
    chosen = example_rows(rows, "luminance")["auc"].tolist()
    every = sorted(rows[(rows["kind"] == "local") & (rows["map"] == "luminance")]["auc"], reverse=True)
    assert chosen == [every[0], every[len(every) // 2], every[-1]]


def test_generations_without_regions_is_refused(make_generations):
    with pytest.raises(ValueError, match="No sample has a planted region"):
        collect_maps([(Path("a"), make_generations(2, region=None))])
