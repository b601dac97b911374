"""The page of E6 from rows whose answer is known, at every setting; no interval for two seeds."""

from pathlib import Path

import pandas as pd
import pytest

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"
STEPS = (0, 10, 15, 22, 33, 50)


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("small_sd")


def rows(bright: float, tint: float, step: int = 99) -> pd.DataFrame:
    """One evaluation: local plant 0 is copied from step 22 on, plant 1 never; the first end token is `bright` on copies, else .5."""
    table = []
    for number, copied in ((0, step >= 22), (1, False)):
        about = {"step": step, "kind": "local", "plant_id": number, "seed": 0}
        values = {"memorized": float(copied), "nn_ratio": 0.5, "auc.luminance": 0.4, "auc.all_ones": 0.5}
        values |= {f"auc.end_token.last.first_eos.{layers}": bright if copied else 0.5 for layers in ("all", "be", "mid")}
        table += [about | {"measure": name, "value": value} for name, value in values.items()]
    table.append({"step": step, "kind": "tint", "plant_id": 7, "seed": 0, "measure": "auc.end_token.last.first_eos.all", "value": tint})
    return pd.DataFrame(table)


def training(make, bright: float, tint: float) -> pd.DataFrame:
    return pd.concat([make.with_verdicts(rows(bright, tint, step)).assign(step=step) for step in STEPS])


@pytest.fixture(autouse=True)
def two_trivial_maps(make, monkeypatch):
    for function in (make.E3.class_means, make.E3.best_trivial):
        monkeypatch.setitem(function.__globals__, "TRIVIAL", ("luminance", "all_ones"))


@pytest.mark.parametrize(
    ("bright", "tint", "said"),
    [
        (0.8, 0.5, "is darker on tints, and is brighter after a plant's emergence than before"),
        (0.8, 0.9, "the map shows what the caption predicts"),
        (0.55, 0.5, "does not exceed the best trivial map"),
    ],
)
def test_the_verdict_of_a_seed_follows_the_rule(make, bright, tint, said) -> None:
    assert said in make.verdict(training(make, bright, tint))
    assert make.verdict(make.with_verdicts(rows(bright, tint, 5))) == "no local plant is memorized"


def test_a_whole_page(make, tmp_path) -> None:
    for seed, bright in enumerate((0.8, 0.84)):
        folder = tmp_path / f"small_sd-{seed}"
        folder.mkdir()
        training(make, bright, 0.5).to_parquet(folder / "measurements.parquet")
        for scale, less in zip(make.SCALES, (0.0, 0.2), strict=True):
            rows(bright - less, 0.5).drop(columns="step").to_parquet(folder / f"maps-{scale}.parquet")
    page = " ".join(make.page(tmp_path).split())
    assert "| trailing | first end | 0.80, 0.84 | 0.50, 0.50 | 0.50, 0.50 | - | - | 0.30, 0.34 |".replace("- | -", "-, - | -, -") in page
    assert "| leading, 7.5 | first end | 0.60, 0.64 |" in page and "[" not in page.split("## Verdict")[1]
    assert "| leading, 1 | 0 | 0 of 0 | 1 of 2 | 0 of 0 | 0 of 0 | 0 of 0 | 0 of 0 | 0 of 0 | 0 of 2 |" in page  # by d1/d2 at the end
    assert "| trailing | 1 | 0.84 | all | 0.84 |" in page
    assert "| leading, 7.5 | 1 | 0.64 | 0.60 | exceeds the best trivial map and is darker on tints |" in page
    assert "in 4 of 4 cases of a guidance scale and a seed (scale 1, seed 0; scale" in make.answer(tmp_path)
    assert "not measured yet" in make.answer(tmp_path / "none")


def test_page_equals_the_committed_page(make, monkeypatch) -> None:
    monkeypatch.undo()
    committed = FINDINGS / "small_sd.md"
    assert committed.exists() == bool(make.read_settings(FINDINGS / "small_sd"))
    assert not committed.exists() or make.page() == committed.read_text(encoding="utf-8")
