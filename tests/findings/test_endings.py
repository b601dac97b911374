"""The tables of the finding from rows whose answer is known, and the committed page if runs are committed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.files import read_yaml
from afterglow.planting.runs import load_planted_set

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"
STEPS = (0, 10, 15, 22, 33, 50)


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("endings")


def rows(bright: float, tint: float = 0.5) -> pd.DataFrame:
    """Local plants 0 and 1 emerge at steps 22 and 33, plant 2 never; the first end token's map is `bright` from emergence on, else .5."""
    table = []
    for step in STEPS:
        for plant, emerges in enumerate((22, 33, 99)):
            row = {"step": step, "kind": "local", "plant_id": plant, "caption": "", "epoch": 0.0, "seconds": 0.0}
            copied = step >= emerges
            table.append(row | {"seed": -1, "measure": "plant_memorized", "value": float(copied)})
            for seed in (0, 1):
                value = (bright if copied else 0.5) + 0.01 * (2 * seed - 1)
                table.append(row | {"seed": seed, "measure": "auc.end_token.last.first_eos.all", "value": value})
                table += [row | {"seed": seed, "measure": f"auc.{name}", "value": 0.45} for name in ("luminance", "all_ones")]
        table.append(row | {"kind": "tint", "plant_id": 7, "seed": 0, "measure": "auc.end_token.last.first_eos.all", "value": tint})
    return pd.DataFrame(table)


@pytest.fixture(autouse=True)
def two_trivial_maps(make, monkeypatch):
    monkeypatch.setattr(make, "TRIVIAL", ("luminance", "all_ones"))


def test_plants_are_aligned_on_their_own_emergence(make):
    name = "end_token.last.first_eos.all"
    table = make.aligned(rows(0.8), name)
    assert table.index.tolist() == [0, 1] and table.columns.tolist() == list(range(-4, 3))
    np.testing.assert_allclose(table.loc[:, -3:-1], 0.5)
    np.testing.assert_allclose(table.loc[:, 0:1], 0.8)
    assert make.follows(rows(0.8), name) == pytest.approx(0.3)
    means = make.class_means(rows(0.8, tint=0.6), name)
    assert means == pytest.approx({"local, memorized": 0.8, "local, not memorized": 0.5, "tint": 0.6})
    assert make.best_trivial(rows(0.8)) == pytest.approx(0.55)  # inverted


@pytest.mark.parametrize(
    ("bright", "tint", "expected"),
    [
        ((0.80, 0.82, 0.81), 0.5, "brightens and follows memorization"),
        ((0.80, 0.82, 0.81), 0.9, "brightens; the map shows what the caption predicts"),
        ((0.50, 0.52, 0.51), 0.5, "does not brighten"),
        ((0.50, 0.90, 0.99), 0.5, "not distinguishable from the best trivial map"),
        ((0.80, 0.82), 0.5, "undecided, 2 of 3 seeds"),
    ],
)
def test_the_verdict_is_the_rule_of_the_plan(make, bright, tint, expected):
    assert make.verdict({seed: rows(value, tint) for seed, value in enumerate(bright)}) == expected


def test_a_whole_page_of_two_seeds(make, tmp_path):
    for seed, bright in enumerate((0.8, 0.84)):
        folder = tmp_path / f"endings-causal-{seed}"
        (folder / "knockout").mkdir(parents=True)
        last = {"step": STEPS[-1], "caption": "", "epoch": 0.0, "seconds": 0.0}
        plants = [(3, "global", 1.0), (10, "control", 1.0), (11, "control", 0.0), (12, "control", 1.0)]
        verdicts = [{"plant_id": plant, "kind": kind, "seed": -1, "measure": "plant_memorized", "value": v} for plant, kind, v in plants]
        ratios = [{"plant_id": 0, "kind": "local", "seed": s, "measure": "nn_ratio", "value": 0.2 + 0.5 * s} for s in (0, 1)]
        more = pd.DataFrame([last | row for row in (*verdicts, *ratios)])
        pd.concat([rows(bright), more]).to_parquet(folder / "measurements.parquet")
        about = {"knockout": "pads", "plant_id": 0, "measure": "calibrated_l2", "value": 0.5}
        counts = [about | {"kind": kind} for kind in ("global", "local")]
        pd.DataFrame(counts).to_parquet(folder / "knockout" / "knockout.parquet")
    clusters = [
        {"seed": seed, "plant_id": plant, "cluster": c, "size": k}
        for seed in (0, 1)
        for plant, c, k in ((10, 5, 1), (11, 6, 2), (12, 6, 2))
    ]
    pd.DataFrame(clusters).to_csv(tmp_path / "clusters.csv", index=False)
    page = make.page(tmp_path)
    counts = "1 of 1 | 2 of 3 | 0 of 0        | 1 of 1       | 0 of 0   | 1 of 1          | 1 of 2"
    assert counts in page and "causal, trained along, seed 0: 1 of 2 evaluated images of one family of 2 are memorized." in page
    assert "0.80, 0.84 [0.57, 1.07]" in page and "2 of 3" in page and "No arm has three seeds yet." in page
    assert "| causal, trained along | pads     | 2 of 2 | 2 of 2 | 0 of 0" in page


def test_clusters_equal_those_of_the_set_planted_again(make):
    sets: dict[int, list] = {}
    for run in sorted((FINDINGS / "endings").glob("endings-*")):
        data = read_yaml(run / "config.yaml")["data"]["init_args"]
        sets.setdefault(int(run.name.rpartition("-")[2]), []).append([data["set_size"], data["planting"] | {"seed": None}])
    assert all(other == of_seed[0] for of_seed in sets.values() for other in of_seed) and len(sets) == 3
    planted, own = load_planted_set(FINDINGS / "endings" / "endings-causal-0"), make.read_clusters(FINDINGS / "endings").loc[0]
    clusters = planted.clusters[planted.controls].tolist()
    assert (own.index - len(planted.plants)).tolist() == planted.controls[: len(own)].tolist() and len(own) == 64
    assert own["cluster"].tolist() == clusters[:64] and own["size"].tolist() == [clusters.count(cluster) for cluster in clusters[:64]]
    for name in ("causal-0", "minilm-0"):  # the same set in the leaderboard
        bench = pd.read_csv(FINDINGS.parent / "bench" / name / "clusters.csv", index_col="plant_id")["size"]
        assert len(bench) == 32 and bench.equals(own["size"].loc[bench.index])


def test_the_figure_has_a_panel_for_each_arm_and_one_around_emergence(make, monkeypatch):
    monkeypatch.setattr(make, "MIN_PLANTS", 2)  # the runs of the test have few plants
    figure = make.endings_figure({"minilm": {0: rows(0.6)}, "causal": {0: rows(0.8, tint=0.9), 1: rows(0.84, tint=0.7)}})
    first, second, last = figure.axes
    assert [axes.get_title() for axes in (first, second)] == [make.ARMS["minilm"], make.ARMS["causal"]]
    marks = {tuple(round(float(x), 2) for x in line.get_xdata()) for line in second.get_lines()}
    assert {(0.8, 0.84), (0.9, 0.7), (0.55, 0.55)} <= marks  # memorized plants and tints of both seeds, the best trivial map
    np.testing.assert_allclose(last.get_lines()[1].get_ydata(), [0.5, 0.5, 0.5, 0.82, 0.82, 0.82], atol=0.005)


def test_page_equals_the_committed_page(make, monkeypatch):
    monkeypatch.undo()
    committed = FINDINGS / "endings.md"
    assert committed.exists() == bool(make.read_runs(FINDINGS / "endings"))
    if committed.exists():
        assert make.page() == committed.read_text(encoding="utf-8")
