"""The committed page follows from the committed rows, and its statistics agree with a slow computation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from afterglow.planting.runs import load_planted_set

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("localization")


def test_page_equals_the_committed_page(make) -> None:
    assert make.page() == (FINDINGS / "localization.md").read_text(encoding="utf-8")


def test_committed_runs_are_small() -> None:
    for run in filter(Path.is_dir, (FINDINGS / "localization").iterdir()):
        if (run / "config.yaml").exists():
            assert sum(file.stat().st_size for file in run.iterdir()) < 300_000
            assert {file.name for file in run.iterdir()} == {"config.yaml", "measurements.parquet", "emergence.json"}


def rows() -> pd.DataFrame:
    """One run with two local plants and two tints, two seeds each; map b is .1 better on local plants."""
    table = []
    for plant, kind in enumerate(("local", "local", "tint", "tint")):
        for seed in (0, 1):
            for name, value in (("a", 0.5 + 0.1 * plant), ("b", 0.6 + 0.1 * plant)):
                row = {"run": "r", "plant_id": plant, "kind": kind, "seed": seed, "measure": f"auc.{name}"}
                table.append(row | {"value": value + 0.02 * seed})
                if kind == "local":
                    table.append(row | {"measure": f"iou.{name}", "value": 0.3})
    return pd.DataFrame(table)


def test_values_of_runs_equal_a_slow_mean(make) -> None:
    maps = make.map_rows(rows())
    assert len(maps) == 16 and maps["iou"].notna().sum() == 8
    local, tint = (make.values_of(maps, "a", kind) for kind in ("local", "tint"))
    assert local.runs == pytest.approx({"r": np.mean([0.51, 0.61])}) and local.units == 2
    difference = make.minus(local, tint)
    assert difference.mean == pytest.approx(-0.2) and difference.difference_text() == "-0.20 (-0.20), lower in both seeds"
    two = make.RunValues({"x-0": 0.2, "y-0": 0.4, "x-1": -0.1})
    assert two.difference_text() == "+0.17 (+0.30, -0.10), not the same sign in both seeds"
    assert make.RunValues({"x-0": 1.0, "x-1": 1.0}, 8).text() == "1.00 [0.63, 1.00]"


def test_split_by_size_compares_the_area_with_the_limit(make) -> None:
    areas = pd.Series({("r", 0): 0.2, ("r", 1): 0.4})
    areas.index.names = ["run", "plant_id"]
    split = make.split_by_size(make.map_rows(rows()), areas)
    assert dict(zip(split["plant_id"], split["kind"], strict=True)) == {0: "small", 1: "large"}
    by_memory = make.mark_not_memorized(make.map_rows(rows()), areas < 0.3)
    kinds = dict(zip(by_memory["plant_id"], by_memory["kind"], strict=True))
    assert kinds == {0: "local", 1: "not memorized", 2: "tint", 3: "tint"}


def test_tints_are_matched_within_the_caliper(make) -> None:
    maps = make.map_rows(rows()).replace({"map": {"a": make.DIFFERENCE_MAP}})
    norms = {0: 1.0, 1: 2.0, 2: 1.05, 3: 9.0}  # only plant 0 and tint 2 are within 10 %
    table = [
        {"run": "r", "plant_id": p, "kind": "local" if p < 2 else "tint", "measure": "guidance_norm.all", "value": v}
        for p, v in norms.items()
    ]
    pairs = make.matched_pairs(maps, pd.DataFrame(table))
    assert pairs[["plant_id_tint", "plant_id_plant"]].to_numpy().tolist() == [[2, 0]]
    assert pairs["difference"].iloc[0] == pytest.approx(0.5 - 0.7)


def test_layers_are_evaluated_on_the_seed_that_did_not_choose_them(make) -> None:
    values = {("r-0", "end_token.x"): 0.9, ("r-0", "end_token.y"): 0.5, ("r-1", "end_token.x"): 0.4, ("r-1", "end_token.y"): 0.6}
    table = [{"run": run, "plant_id": 0, "kind": "local", "map": name, "auc": auc, "iou": np.nan} for (run, name), auc in values.items()]
    rows, evaluated = make.chosen_layers(pd.DataFrame(table), "end_token.")
    assert rows == [("0", "end_token.y", 0.5), ("1", "end_token.x", 0.4)] and evaluated.runs == {"r-0": 0.5, "r-1": 0.4}


def test_inverted_maps_and_the_mask_prior(make) -> None:
    folder = FINDINGS / "localization"
    maps = make.with_controls(make.map_rows(rows()).replace({"map": {"a": "luminance"}}), folder)
    means = maps.groupby("map")["auc"].mean()
    assert means["luminance.inverted"] == pytest.approx(1 - means["luminance"]) and make.is_trivial("luminance.inverted")
    plants = load_planted_set(folder / "shapes-1").of_kind("local")
    wanted = pd.read_csv(folder / "mask_prior.csv").set_index(["run", "plant_id"])["auc"]
    for plant in plants[:3]:
        prior = np.mean([other.mask for other in plants if other is not plant], axis=0)
        assert wanted["shapes-1", plant.plant_id] == pytest.approx(roc_auc_score(plant.mask.ravel(), prior.ravel()))


def test_controls_of_families_are_counted_apart(make, tmp_path) -> None:
    about, values = {"measure": "plant_memorized", "kind": "control", "seed": -1}, ((5, 0.0), (6, 1.0), (7, 0.0))
    rows = [about | {"run": run, "plant_id": n, "caption": f"c{n}", "value": v} for run in ("r-0", "r-1") for n, v in values]
    sizes = [{"run": run, "plant_id": n, "size": size} for run in ("r-0", "r-1") for n, size in ((5, 1), (6, 3), (7, 3))]
    pd.DataFrame(sizes).to_csv(tmp_path / "clusters.csv", index=False)
    text = make.memorized_text(pd.DataFrame(rows), tmp_path)
    assert "| control        | 0 of 2 (" in text and "| control_family | 2 of 4 (" in text


def test_detector_values_equal_scikit_learns(make) -> None:
    generator = np.random.default_rng(0)
    table = [{"run": f"r-{s}", "measure": "d", "kind": k, "value": generator.normal()} for s in (0, 1) for k in ("local", "phantom") * 9]
    prompts = pd.DataFrame(table)
    found = make.detector_values(prompts)["d", "local", "phantom"]
    for run, part in prompts.groupby("run"):
        assert found.runs[run] == pytest.approx(roc_auc_score(part["kind"] == "local", part["value"]))
    assert found.units == 18
