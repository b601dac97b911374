from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.functional.statistics import wilson_interval
from afterglow.reports.run import EvaluationFile, read_run


def test_read_run_reads_all_files(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert (run.steps, run.last, run.finished) == ([0, 10, 20, 30, 40], 40, True)
    assert run.kinds == ["global", "local", "control", "phantom", "decoy", "tint", "heldout"]
    assert list(run.plants) == list(range(12)) and list(run.evaluations) == run.steps


def test_setting_is_found_by_its_dotted_path(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert run.setting("data.init_args.resolution") == 8
    assert run.setting("data.init_args.none") is None and run.setting("name.of.nothing") is None


def test_last_values_are_means_over_seeds(run_folder: Path) -> None:
    run = read_run(run_folder)
    rows = run.rows[(run.rows["step"] == 40) & (run.rows["plant_id"] == 1) & (run.rows["measure"] == "correlation")]
    assert len(rows) == 2 and run.last_values["local", "correlation"][1] == pytest.approx(rows["value"].mean())


def test_read_run_ignores_emergence_json_of_a_shorter_run(run_folder: Path) -> None:
    table = pd.read_parquet(run_folder / "measurements.parquet")
    longer = pd.concat([table, table[table["step"] == 40].assign(step=60)], ignore_index=True)
    longer.to_parquet(run_folder / "measurements.parquet")
    run = read_run(run_folder)
    assert not run.finished and run.emergence["evaluation_steps"][-1] == 60


def test_read_run_without_rows_raises(run_folder: Path) -> None:
    pd.read_parquet(run_folder / "measurements.parquet").head(0).to_parquet(run_folder / "measurements.parquet")
    with pytest.raises(ValueError, match="holds no rows"):
        read_run(run_folder)


def test_evaluation_file_finds_images_by_plant_and_seed(make_run: Callable[..., Path]) -> None:
    evaluation = EvaluationFile(make_run() / "maps" / "step=40.safetensors")
    assert evaluation.seeds(3) == [0, 1] and evaluation.seeds(77) == []
    assert evaluation.images.dtype == np.uint8 and len(evaluation.images) == len(evaluation.row)
    assert "map/luminance" in evaluation.names


def test_memorized_fractions_equal_the_logged_numbers(run_folder: Path) -> None:
    run = read_run(run_folder)
    for kind, fractions in run.memorized.items():
        assert [fraction.value for fraction in fractions] == [run.numbers[fraction.step][f"memorized/{kind}"] for fraction in fractions]
        assert [fraction.interval for fraction in fractions] == [wilson_interval(f.memorized, f.count) for f in fractions]
    assert [(fraction.step, fraction.count) for fraction in run.memorized["control"]] == [(40, 3)]
