"""The page of E5 from plants whose emergence is a known function of the number of backgrounds, and the rule of the plan."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.analysis import scaling
from afterglow.analysis.summary import ALL_SEEDS
from afterglow.functional.statistics import Estimate

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("backgrounds")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch) -> None:
    monkeypatch.setattr(scaling, "resampled_tables", partial(scaling.resampled_tables, num_resamples=8))


def add_local_plants(run: Path, backgrounds: int) -> None:
    """16 plants: at backgrounds^.3 times 50 to 80 steps in the region, and as a whole with 2 backgrounds only; fresh ones at 300."""
    rows = pd.read_parquet(run / "measurements.parquet")
    rows = rows[rows["kind"] == "heldout"]
    found, lines = [], []
    for number in range(16):
        emerges = 300.0 if not backgrounds else backgrounds**0.3 * (50 + 2 * number)
        about = {"plant_id": number, "kind": "local", "caption": "", "seed": ALL_SEEDS}
        lines.append(json.dumps({"plant_id": number, "kind": "local", "copies": 200, "text": "a", "area": 0.5}) + "\n")
        for step, epoch in rows.drop_duplicates("step")[["step", "epoch"]].itertuples(index=False):
            values = {"plant_memorized": float(step >= emerges), "outside_diversity": 0.25 if backgrounds == 2 else 1.0}
            values |= {"local_to_global": float(backgrounds == 2)}
            values |= {"plant_memorized.whole": float(backgrounds == 2 and step >= 2 * emerges)} if backgrounds else {}
            found += [about | {"step": step, "epoch": epoch, "seconds": 1.0, "measure": name, "value": v} for name, v in values.items()]
    pd.concat([rows, pd.DataFrame(found)]).to_parquet(run / "measurements.parquet")
    (run / "plants" / "metadata.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def folder(write_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backgrounds")
    for seed in (0, 1):
        for count in (2, 16, 64, 0):
            add_local_plants(write_run(folder / f"backgrounds-{count}-{seed}", seed=seed), count)
    return folder


def test_slopes_equal_the_exponent_of_the_plants(make, folder) -> None:
    plants = make.read_plants_of(make.run_folders(folder))
    found = make.slopes(plants)
    assert list(found) == [0, 1] and all(value.value == pytest.approx(0.3, abs=0.05) and value.low > 0.2 for value in found.values())
    fresh = make.fresh_factors(plants)[0]
    assert fresh.value == pytest.approx(300 / (64**0.3 * 64), rel=0.2) and fresh.low > 1
    assert make.slopes(plants[plants["backgrounds"] == 16]) == {}  # one number has no slope
    assert make.slopes(plants.assign(upper=np.inf)) == {}


def test_a_trend_needs_both_seeds(make) -> None:
    up, down, wide = Estimate(0.3, 0.1, 0.5), Estimate(-0.3, -0.5, -0.1), Estimate(0.3, -0.1, 0.6)
    assert make.verdict({0: up, 1: up}) == "local plants emerge later the more backgrounds they have"
    assert make.verdict({0: down, 1: down}) == "local plants emerge earlier the more backgrounds they have"
    assert make.verdict({0: up, 1: down}) == make.verdict({0: up, 1: wide}) == "no trend"
    assert make.verdict({0: up}).startswith("undecided")


def test_a_whole_page(make, folder, tmp_path) -> None:
    page = " ".join(make.page(folder).split())
    assert "8 of 10 planned runs are complete. By the rule of the plan: local plants emerge later the more backgrounds they have." in page
    assert "| 2 | 0 | 16 of 16 (81% to 100%) | 95 | 16 of 16 (81% to 100%) | 186 | 16 of 16 (81% to 100%) | 0.25 | - |" in page
    assert "| fresh | 1 | 16 of 16 (81% to 100%) | 364 | - | - | 0 of 16 (0% to 19%) | 1.00 | - |" in page
    assert make.answer(folder).endswith("local plants emerge later the more backgrounds they have.")
    assert "not measured yet" in make.answer(tmp_path)


def test_page_equals_the_committed_page(make) -> None:
    committed = FINDINGS / "backgrounds.md"
    assert committed.exists() == bool(make.run_folders(FINDINGS / "backgrounds"))
    assert not committed.exists() or make.page() == committed.read_text(encoding="utf-8")
