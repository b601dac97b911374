"""The committed page follows from the committed runs; its rules agree with a slow computation on runs whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.paired_plants import paired_table
from afterglow.reports.runs import read_runs

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("photographs")


def test_page_equals_the_committed_page(make) -> None:
    assert make.page() == (FINDINGS / "photographs.md").read_text(encoding="utf-8")


def rows() -> pd.DataFrame:
    """One plant, two generations: calibrated distances fall over the evaluations, one generation ahead of the other."""
    distances = {0: (3.0, 3.0), 10: (0.9, 3.0), 20: (0.7, 1.2), 30: (0.7, 1.1), 40: (0.5, 0.7), 50: (0.5, 0.5), 60: (0.5, 0.5)}
    one = {"plant_id": 3, "kind": "local"}
    table = []
    for step, pair in distances.items():
        for seed, value in enumerate(pair):
            for measure, number in (("calibrated_l2", value), ("memorized", float(value < 1))):
                table.append(one | {"step": step, "seed": seed, "measure": measure, "value": number})
            if value > 0.6:  # the ratio of the nearest copies is undefined
                table.append(one | {"step": step, "seed": seed, "measure": "nn_ratio", "value": value / 3})
    return pd.DataFrame(table)


def test_every_control_of_a_run_has_a_cluster_size(make) -> None:
    sizes = pd.read_csv(FINDINGS / "photographs" / "clusters.csv")
    assert not sizes.duplicated(["run", "plant_id"]).any() and (sizes["size"] >= 1).all()
    for path in (FINDINGS / "photographs").glob("*/measurements.parquet"):
        rows = pd.read_parquet(path, columns=["kind", "measure", "plant_id"])
        known = set(sizes[sizes["run"] == path.parent.name]["plant_id"]) | set(rows[rows["measure"] == "cluster_size"]["plant_id"])
        assert known >= set(rows[(rows["kind"] == "control") & (rows["measure"] == "plant_memorized")]["plant_id"])
    text = make.controls_text(sorted((FINDINGS / "photographs").glob("photographs-flowers102-*")))
    evaluated = sizes[sizes["run"].str.startswith("photographs-flowers102-")].assign(seed=lambda table: table["run"].str.split("-").str[2])
    families = int((evaluated.drop_duplicates(["seed", "plant_id"])["size"] > 1).sum())
    assert f"of {families} (" in next(line for line in text.splitlines() if line.startswith("| control_family"))


def test_rules_by_hand(make) -> None:
    rules = {rule.name: make.rule_intervals(rows(), rule, "") for rule in make.RULES}
    assert rules["calibrated distance below 0.8"] == {3: (10, 20)}  # one of two is enough
    assert rules["calibrated distance below 1.25"] == {3: (0, 10)}
    assert rules["calibrated distance below 1, one generation per caption"] == {3: (0, 10)}
    assert rules["d1/d2 below 1/3"] == {3: (0, 10)}
    second = rows()[rows()["seed"] == 1]
    assert make.rule_intervals(second, make.RULES[0], "") == {3: (60, np.inf)}  # a copy at 40, then undefined, which is none
    assert make.rule_intervals(second, make.CopyRule("x", "calibrated_l2", 1.15), "") == {3: (20, 30)}
    assert make.rule_intervals(rows(), make.RULES[0], ".region") == {}  # not kept


def test_differences_of_written_runs(make, tmp_path, write_run) -> None:
    for seed in (0, 1):
        for arm in (0, 1):
            folder = write_run(tmp_path / f"photographs-cifar10-{seed}-{arm}", n=200, seed=seed, arm=arm, factor=1.4 + 0.2 * seed)
            (folder / "emergence.json").write_text("{}")
    text = make.page(tmp_path)
    assert "4 of 6 planned runs are complete, and 2 of 3 seeds have both arms" in text and "0 of 6 planned runs" in text
    table = paired_table(read_runs(sorted(tmp_path.iterdir())))
    larger = write_run(tmp_path / "photographs_32-celeba-0", n=200, seed=0, arm=0)
    (larger / "emergence.json").write_text("{}")
    assert "### CelebA, 32 pixels" in make.page(tmp_path) and "### CIFAR-10, 32" not in make.page(tmp_path)
    line = make.difference_line("x", table)
    seeds = [float(value) for value in line[-1].split(", ")]
    assert np.exp(seeds) == pytest.approx([1.4, 1.6], rel=0.2) and line[1] == "8"  # evaluations are a factor of 1.25 apart
    assert float(line[2].split(" ")[0]) == pytest.approx(np.mean(seeds), abs=0.01)
    assert make.difference_line("x", table.iloc[:0])[1:] == ["0", "-", "-", "-"]
    alone = make.difference_line("x", table[table["seed"] == 1])
    assert "[" not in alone[2] and alone[4] == f"{seeds[1]:+.2f}"
