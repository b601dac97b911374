"""The page of E2 from runs whose tau_mem is known, and the rules of the plan."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("photograph_sizes")


def write_extraction(folder: Path, share: float) -> None:
    folder.mkdir(parents=True)
    values = np.where(np.arange(100) < 100 * share, 0.1, 2.0)
    pd.DataFrame({"calibrated_l2": values, "nn_ratio": 2.0, "neighbors": 31}).to_parquet(folder / "extract.parquet")
    pd.DataFrame({"calibrated_l2": [0.9, 1.1], "nn_ratio": 1.0}).to_parquet(folder / "unseen.parquet")


@pytest.fixture(scope="module")
def folder(write_run, tmp_path_factory) -> Path:
    """Copies from step 4 n on by d1/d2 (`write_run`), from step n on by the calibrated distance; false positives at n = 32 only."""
    folder = tmp_path_factory.mktemp("sizes")
    for n in (32, 64, 128, 256):  # three remain by the calibrated distance
        for seed in (0, 1):
            run = write_run(folder / f"photograph_sizes-celeba-{n}-{seed}", n=n, seed=seed, planted=False)
            rows = pd.read_parquet(run / "measurements.parquet")
            ratio = rows[rows["measure"] == "nn_ratio"]
            rows = pd.concat([rows, ratio.assign(measure="calibrated_l2", value=np.where(ratio["step"] >= n, 0.5, 1.5))])
            rows.to_parquet(run / "measurements.parquet")
            write_extraction(folder / f"extract-{run.name}", 0.5)
            write_extraction(folder / f"extract-{run.name}-disjoint", 0.2 if n == 32 else 0.02)
    return folder


def test_sizes_with_false_positives_are_not_used(make, folder) -> None:
    runs = make.read_dataset(folder, "celeba")
    calibrated, ratio = (make.scaling(make.usable(folder, runs, rule)) for rule in make.RULES)
    assert calibrated.sizes == [64, 128, 256] and ratio.sizes == [32, 64, 128, 256]
    assert ratio.slopes == pytest.approx({0: 1.0, 1: 1.0}, abs=0.1) and ratio.verdict == "is not distinguishable from 1"
    assert calibrated.laws is not None and calibrated.laws[1].parameters["c"] == pytest.approx(1.0, rel=0.3)


def test_no_size_is_used_before_its_false_positives_are_known(make, folder, tmp_path) -> None:
    used = make.usable(tmp_path, make.read_dataset(folder, "celeba"), make.RULES[0])
    assert used.empty and make.scaling(used).verdict == "is undecided"


def test_a_slope_departs_only_if_the_linear_law_is_less_likely(make) -> None:
    power, offset = (make.Law("", {}, value) for value in (3.0, 4.0))
    slopes = {0: 0.50, 1: 0.52}
    assert make.Scaling([32, 128, 512], [32, 128, 512], slopes, (power, offset)).verdict == "departs from 1"
    assert make.Scaling([32, 128, 512], [32, 128, 512], slopes, (offset, power)).verdict == "is not distinguishable from 1"
    assert make.Scaling([32, 128, 512], [32, 128, 512], {0: 0.2, 1: 0.9}, (power, offset)).verdict == "is not distinguishable from 1"
    assert make.Scaling([32, 128, 512], [32, 128, 512], {0: 0.50}, (power, offset)).verdict == "is undecided"
    assert make.Scaling([32, 128, 512], [32, 128], slopes, None).range_text == "n = 32 to 128"
    assert make.Scaling([32, 128], [32, 128], slopes, None).verdict == "is undecided"


def test_the_slope_of_a_seed_is_that_of_its_interpolated_steps_and_does_not_use_censored_sizes(make) -> None:
    table = pd.DataFrame({"n": [32.0, 128.0, 512.0] * 2, "seed": [0] * 3 + [1] * 3, "tau": [903, 4439, np.inf, 720, 4009, np.inf]})
    table["lower"], table["upper"] = table["tau"].replace(np.inf, 9000.0) / 1.1, table["tau"] * 1.1
    found = make.scaling(table.assign(unit=0))
    assert found.slopes == pytest.approx({0: np.log(4439 / 903) / np.log(4), 1: np.log(4009 / 720) / np.log(4)})
    assert found.mean.low < 1 < found.mean.high and found.verdict == "is not distinguishable from 1"


def test_one_size_at_which_copying_begins_determines_no_slope(make) -> None:
    table = pd.DataFrame({"n": [32.0, 512.0] * 2, "seed": [0, 0, 1, 1], "lower": [400.0, 9000.0] * 2, "upper": [500.0, np.inf] * 2})
    table["tau"] = [450.0, np.inf] * 2
    assert make.scaling(table.assign(unit=0)).slopes == {} and make.scaling(table.assign(unit=0)).laws is None


def test_a_whole_page(make, folder, tmp_path) -> None:
    page = " ".join(make.page(folder).split())
    assert "8 of 6 planned runs are complete" in page and "0 of 6 planned runs are complete" in page
    assert "| calibrated distance below 1 | 64, 128, 256 |" in page
    assert "| 32 | 0 | calibrated distance below 1 | 31 | 50 of 100 (40.4% to 59.6%) | 20 of 100 (13.3% to 28.9%) | 1 of 2" in page
    assert "as n^0.97 [0.97, 0.97] over n = 32 to 256" in make.answer(folder) and "0 of 12 runs" in make.answer(tmp_path)


def test_models_that_make_the_same_of_a_noise_agree(make, folder, tmp_path, monkeypatch) -> None:
    images = np.random.default_rng(0).normal(size=(40, 3, 4, 4))
    monkeypatch.setattr(make, "_images", lambda path: images)
    for name in ("celeba-32-0", "celeba-32-1", "celeba-128-0"):  # the second model of 128 is not there yet
        (tmp_path / f"extract-photograph_sizes-{name}").mkdir()
    make.write_agreement(tmp_path, tmp_path)
    make.write_agreement(tmp_path / "without runs", tmp_path)  # keeps the row
    runs = make.read_dataset(folder, "celeba")
    (table,) = list(make.agreement_text(tmp_path, runs))[1:]
    assert "| 32 | 1.00 [1.00, 1.00] | -0.0" in " ".join(table.split()) and not list(make.agreement_text(tmp_path / "none", runs))


def test_page_equals_the_committed_page(make) -> None:
    committed = FINDINGS / "photograph_sizes.md"
    assert committed.exists() == any((FINDINGS / "photograph_sizes").glob("*/measurements.parquet"))
    assert not committed.exists() or make.page() == committed.read_text(encoding="utf-8")
