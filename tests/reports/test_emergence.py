"""Fits, comparisons and the page, on runs whose answer is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from afterglow.analysis.emergence import ASSIGNED, COMPLETED, DEFINITION
from afterglow.analysis.scaling import Law
from afterglow.functional.statistics import Estimate
from afterglow.reports import emergence_figures
from afterglow.reports.emergence import (
    departs,
    growth_departs,
    median_text,
    model_fits,
    plant_fits,
    plants_of_kind,
    slopes_section,
    write_emergence,
)
from afterglow.reports.paired_plants import pair_plants
from afterglow.reports.runs import read_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("runs")
    options = [{"n": n, "seed": seed, "arm": arm} for n in (100, 400, 1600) for seed in (0,) for arm in (0, 1)]
    return read_runs([write_run(folder / "-".join(map(str, one.values())), factor=1.5, **one) for one in options])


def test_plant_fits_equal_the_reference_if_exposure_alone_decides(runs):
    """Written so that a plant emerges when it has been shown 100 times, whatever n and copies are; probes 1.25 times apart."""
    for fitted in plant_fits(runs):
        for name, slope in fitted.fit.slopes.items():
            assert slope.value == pytest.approx(fitted.reference[name], abs=0.2), (fitted.name, fitted.axis, name)


def test_model_fits_recover_the_slope_of_tau_mem(runs):
    fitted = model_fits(runs)[0]
    assert fitted.name == "tau_mem" and fitted.fit.slopes["n"].value == pytest.approx(1, abs=0.1)
    assert fitted.fit.censored == 2  # of the largest set, whose run ends before


def test_model_fits_treat_a_falling_loss_as_censored(tmp_path, write_run):
    folders = [write_run(tmp_path / str(n), n=n) for n in (100, 400, 1600)]
    for folder, end in zip(folders, (20, 80, 1000), strict=True):
        losses = pd.read_parquet(folder / "measurements.parquet")
        unseen = losses["measure"] == "denoising_loss"
        losses.loc[unseen, "value"] = 0.1 * (end < 1000) + np.exp(-losses.loc[unseen, "step"] / end)  # a plateau, or none yet
        losses.to_parquet(folder / "measurements.parquet")
    found = read_runs(folders)
    assert np.isinf(found.runs["tau_gen"]).tolist() == [False, False, True]
    fitted = next(one for one in model_fits(found) if one.name == "tau_gen")
    assert fitted.fit.censored == 1 and fitted.fit.slopes["n"].value > 0


def test_departs_ignores_differences_below_the_printed_precision():
    assert not departs(Estimate(-1e-9, -1e-9, -1e-9), 0.0) and not departs(Estimate(0.9, 0.7, 1.1), 1.0)
    assert departs(Estimate(0.9, 0.8, 0.98), 1.0) and departs(Estimate(0.3, 0.1, 0.5), 0.0)


def test_a_slope_of_tau_mem_departs_only_if_the_law_with_an_offset_is_less_likely(tmp_path, write_run):
    likely, unlikely = (Law("", {}, loss) for loss in (3.0, 4.0))
    below = Estimate(0.5, 0.4, 0.6)
    assert growth_departs(below, 1.0, (likely, unlikely)) is True and growth_departs(below, 1.0, (unlikely, likely)) is False
    assert growth_departs(Estimate(0.9, 0.7, 1.1), 1.0, (likely, unlikely)) is False and growth_departs(below, 1.0, None) is None
    runs = read_runs([write_run(tmp_path / f"{n}-{seed}", n=n, planted=False, seed=seed) for n in (100, 200, 400) for seed in (0, 1)])
    # tau_mem = 300 + 4 n: the interval of the slope excludes 1, and the law with an offset explains it
    width = 1.02 - 0.01 * runs.runs["seed"]
    times = {"tau_mem": 300 + 4 * runs.runs["n"], "tau_mem_lower": (300 + 4 * runs.runs["n"]) / width}
    tables = dataclasses.replace(runs, runs=runs.runs.assign(**times, tau_mem_upper=(300 + 4 * runs.runs["n"]) * width))
    named = model_fits(tables)[0]
    assert departs(named.fit.slopes["n"], 1.0) and slopes_section([named]).rows[0][5] == "no"
    two = dataclasses.replace(tables, runs=tables.runs[tables.runs["n"] < 400])
    assert slopes_section(model_fits(two)[:1]).rows[0][5] == "undecided"


def test_models_without_captions_are_reported_by_assignment_and_by_outpainting(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr(emergence_figures, "NUM_BANDS", 2)
    runs = [write_run(tmp_path / f"run-{seed}", seed=seed, outpainted=True) for seed in (0, 1)]
    text, numbers, images = write_emergence(read_runs(runs), tmp_path / "out")
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert {"local, by assignment", "local, by outpainting", "phantom, by outpainting"} <= rows and "local" not in rows
    key = "emergence/local{}/exposures/copies"
    assert {key.format(""), key.format("_outpainted")} <= set(numbers)
    assert {"media/emerged_step", "media/emerged_step_outpainted", "media/local_copies_step_outpainted"} <= set(images)
    page = (tmp_path / "out" / "emergence.html").read_text()
    assert f"by assignment (Turnbull, in steps); {ASSIGNED}" in page and f"by outpainting (Turnbull, in steps); {COMPLETED}" in page


def test_few_seeds_have_a_t_interval_over_their_own_fits(tmp_path, write_run):
    options = [{"n": 200, "seed": seed, "arm": arm, "factor": 1.3 + 0.2 * seed} for seed in (0, 1, 2) for arm in (0, 1)]
    tables = read_runs([write_run(tmp_path / "-".join(map(str, one.values())), **one) for one in options])
    found = pair_plants(tables)
    alone = [
        pair_plants(read_runs([tmp_path / f"200-{seed}-{arm}-{1.3 + 0.2 * seed}" for arm in (0, 1)])).difference.value for seed in range(3)
    ]
    assert list(found.seeds.values()) == pytest.approx(alone) and found.templates == found.pairs == 12
    assert np.exp(alone) == pytest.approx([1.3, 1.5, 1.7], rel=0.12)
    low, high = stats.t.interval(0.95, 2, np.mean(alone), stats.sem(alone))
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    medians = [median_text(plants_of_kind(read_runs([tmp_path / f"200-{s}-0-{1.3 + 0.2 * s}"]).plants, "global")) for s in range(3)]
    text = median_text(plants_of_kind(read_runs([tmp_path / f"200-{s}-0-{1.3 + 0.2 * s}" for s in range(3)]).plants, "global"))
    assert text.partition(" (seeds: ")[2] == ", ".join(one.split(" ")[0] for one in medians) + ")"


def test_write_emergence_writes_a_self_contained_page(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr(emergence_figures, "NUM_BANDS", 2)  # bands are for eyes
    runs = [write_run(tmp_path / f"arm-{arm}", n=100, arm=arm, factor=1.5) for arm in (0, 1)]
    text, numbers, images = write_emergence(read_runs(runs), tmp_path)
    page = (tmp_path / "emergence.html").read_text()
    assert "Local plants are memorized later than" in text and "Local plants are memorized later than" in page
    assert f"{numbers['emergence/local/step/copies']:.2f}" in page
    assert page.count(f"(Turnbull, in steps); {DEFINITION}") == 1 and "by outpainting" not in page
    assert page.count("<svg") == len(images) and "http://www.w3.org" in page and 'src="' not in page
    assert all(path.is_file() for path in images.values()) and (tmp_path / "plants.parquet").is_file()


def test_write_emergence_of_runs_without_plants(tmp_path, write_run):
    runs = [write_run(tmp_path / f"bare-{n}", n=n, planted=False) for n in (50, 100, 200, 400)]
    text, numbers, images = write_emergence(read_runs(runs), tmp_path / "out")
    assert numbers["emergence/tau_mem/step/n"] == pytest.approx(1, abs=0.1) and set(images) == {"media/f_mem", "media/tau_mem_n"}
    assert "Local against global" not in text
    text, numbers, _ = write_emergence(read_runs(runs[:1]), tmp_path / "one")
    assert numbers == {} and "Memorization and generalization of models without captions" in text
