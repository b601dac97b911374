from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afterglow.reports.run import Evaluation, read_run


def test_a_run_is_read_whole(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert (run.steps, run.last, run.finished) == ([0, 10, 20, 30, 40], 40, True)
    assert run.kinds == ["global", "local", "control", "phantom", "decoy", "tint", "heldout"]
    assert list(run.plants) == list(range(12)) and list(run.probed) == run.steps


def test_settings_are_found_by_their_path(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert run.setting("data.init_args.resolution") == 8
    assert run.setting("data.init_args.none") is None and run.setting("name.of.nothing") is None


def test_last_values_are_means_over_seeds(run_folder: Path) -> None:
    run = read_run(run_folder)
    rows = run.rows[(run.rows["step"] == 40) & (run.rows["plant_id"] == 1) & (run.rows["measure"] == "correlation")]
    assert len(rows) == 2 and run.last_values["local", "correlation"][1] == pytest.approx(rows["value"].mean())


def test_a_run_that_was_continued_has_outgrown_its_emergence(run_folder: Path) -> None:
    table = pd.read_parquet(run_folder / "measurements.parquet")
    longer = pd.concat([table, table[table["step"] == 40].assign(step=60)], ignore_index=True)
    longer.to_parquet(run_folder / "measurements.parquet")
    run = read_run(run_folder)
    assert not run.finished and run.emergence["evaluation_steps"][-1] == 60


def test_an_empty_table_is_refused(run_folder: Path) -> None:
    pd.read_parquet(run_folder / "measurements.parquet").head(0).to_parquet(run_folder / "measurements.parquet")
    with pytest.raises(ValueError, match="holds no rows"):
        read_run(run_folder)


def test_images_are_found_by_plant_and_seed(make_run: Callable[..., Path]) -> None:
    probed = Evaluation(make_run() / "maps" / "step=40.safetensors")
    assert probed.seeds(3) == [0, 1] and probed.seeds(77) == []
    assert probed.images.dtype == np.uint8 and len(probed.images) == len(probed.row)
    assert "map/luminance" in probed.names
