"""The committed page follows from the committed rows, and its statistics agree with hand-made cases."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.callbacks.early_stop import EarlyStop
from afterglow.planting.runs import load_planted_set
from afterglow.reports import emergence_figures

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("emergence")


def test_page_equals_the_committed_page(make, monkeypatch) -> None:
    monkeypatch.setattr(emergence_figures, "NUM_BANDS", 2)  # figures are not compared
    text, figures = make.page()
    assert text == (FINDINGS / "emergence.md").read_text(encoding="utf-8")
    assert all((FINDINGS / "emergence" / f"{name}.png").is_file() for name in figures)


def test_committed_runs_are_small() -> None:
    for folder in (FINDINGS / "emergence").glob("*/measurements.parquet"):
        assert sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file()) < 100_000


def test_detected_from_needs_all_later_evaluations(make) -> None:
    values = {10: (0.1, 0.5), 20: (0.9, 0.1), 30: (0.1, 0.2), 40: (0.8, 0.1), 50: (0.9, 0.0)}
    rows = pd.DataFrame(
        [
            {"step": step, "kind": kind, "value": value}
            for step, pair in values.items()
            for kind, value in zip(("local", "phantom"), pair, strict=True)
        ]
    )
    assert make.detected_from(rows, "local") == 40  # below at 30
    assert np.isinf(make.detected_from(rows.assign(value=0.0), "local"))


def test_thresholds_text_counts_evaluations_before_the_first_memorized_plant(make, tmp_path) -> None:
    assert next(iter(make.THRESHOLDS.values())) == EarlyStop().threshold
    about = {"epoch": 0.0, "seconds": 0.0, "caption": "a", "seed": -1}
    rows = []
    for step in range(5):  # a plant passes 1/2 ln 2 at step 1 and ln 2 at step 4, a phantom the first at step 2; memorized at step 3
        for kind, value in (("global", 0.15 * step + 0.2), ("phantom", 0.15 * step + 0.1)):
            rows.append(about | {"step": step, "plant_id": 0, "kind": kind, "measure": "denoising_log_ratio.inside", "value": value})
        rows.append(about | {"step": step, "plant_id": 0, "kind": "global", "measure": "plant_memorized", "value": float(step > 2)})
    pd.DataFrame(rows).to_parquet(tmp_path / "measurements.parquet")
    first, second = (line.split("|")[2:5] for line in make.thresholds_text([tmp_path]).splitlines()[2:])
    assert [cell.strip() for cell in first] == ["1 of 1", "2 to 2", "1 of 1"]
    assert [cell.strip() for cell in second] == ["0 of 1", "-1 to -1", "0 of 1"]


def test_clusters_equal_those_of_the_set_dealt_again(make) -> None:
    table = pd.read_csv(FINDINGS / "emergence" / "clusters.csv")
    for run in ("sizes-32-1", "paired_arms-500-0-0"):
        planted = load_planted_set(FINDINGS / "emergence" / run)
        own = table[table["run"] == run]
        rows = (own["plant_id"] - len(planted.plants)).tolist()
        clusters = planted.clusters[planted.controls].tolist()
        assert rows == planted.controls[: len(rows)].tolist()
        assert own["size"].tolist() == [clusters.count(planted.clusters[row]) for row in rows]
    runs = make.with_clusters(pd.DataFrame({"run": ["sizes-32-1"]}), FINDINGS / "emergence").iloc[0]
    sizes = [32, *table[table["run"] == "sizes-32-1"].groupby("cluster").size()]
    assert runs["clusters"] == len(sizes) - 1 and runs["effective"] == pytest.approx(32**2 / sum(k**2 for k in sizes[1:]))


def test_copies_of_natural_families_are_no_false_positives(make, tmp_path) -> None:
    about = {"epoch": 1.0, "seconds": 0.0, "caption": "", "seed": -1, "measure": "plant_memorized", "step": 5}
    for arm in (0, 1):  # the arms share phantom and controls; one phantom is memorized in one of them
        folder = tmp_path / f"pairs-{arm}-0"
        (folder / "plants").mkdir(parents=True)
        (folder / "plants" / "metadata.jsonl").write_text('{"plant_id": 0, "kind": "phantom", "copies": 0, "text": "a"}\n')
        values = [(0, "phantom", float(arm)), (4, "control", 1.0), (5, "control", 0.0), (9 + arm, "heldout", 0.0)]
        pd.DataFrame([about | {"plant_id": p, "kind": k, "value": v} for p, k, v in values]).to_parquet(folder / "measurements.parquet")
    sizes = [(f"pairs-{arm}-0", number, number, size) for arm in (0, 1) for number, size in ((4, 6), (5, 1))]
    pd.DataFrame(sizes, columns=["run", "plant_id", "cluster", "size"]).to_csv(tmp_path / "clusters.csv")
    counts = make.false_positives([tmp_path / f"pairs-{arm}-0" for arm in (0, 1)], tmp_path)
    family, alone = "control of a natural family", "control, alone in its cluster"
    assert counts == {"phantom": (1, 1), family: (1, 1), alone: (0, 1), "heldout": (0, 1)}


def test_controls_text_counts_copies(make, tmp_path) -> None:
    (tmp_path / "own").mkdir()
    table = pd.DataFrame({"generation": range(4), "calibrated_l2": [0.5, 0.9, 1.2, 2.0], "nn_ratio": [0.1, 0.5, np.nan, 0.9]})
    table.to_parquet(tmp_path / "own" / "extract.parquet")
    plants = pd.DataFrame({"plant_id": [0, 1, 2], "kind": ["global", "local", "phantom"], "generations": [3, 0, 0]})
    plants.to_parquet(tmp_path / "own" / "plants.parquet")
    text = make.controls_text(tmp_path)
    assert "2 of 4 (15% to 85%)" in text and "1 of 4" in text and "1 of 1 " in text and text.count("0 of 1") == 2


def test_start_up_laws_of_plants_whose_start_up_grows_with_the_set(make) -> None:
    settings = [(n, copies, unit) for n in (500.0, 2000.0) for copies in (50.0, 100.0, 200.0) for unit in range(12)]
    table = pd.DataFrame(settings, columns=["n", "copies", "unit"]).assign(rate=lambda t: 32 * t["copies"] / (t["n"] + 2000))
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, len(table)))

    def losses(start_up: pd.Series | float) -> list[float]:
        steps = (start_up + 200 / table["rate"]) * noise
        laws = make.start_ups(table.assign(lower=steps / 1.1, upper=steps * 1.1))
        assert [number for number, _ in laws.values()] == [3, 4, 4]
        return [loss for _, loss in laws.values()]

    growing, constant = losses(4 * table["n"] ** 0.6), losses(200.0)
    assert growing[1] < growing[0] - 5 and constant[1] > constant[0] - 2
    assert "fits better than a constant one (1.0 against 9.0" in (text := make.start_up_verdict("local", [9.0, 1.0, 2.0]))
    assert text.endswith("a power law without a start-up fits no better (2.0).")
