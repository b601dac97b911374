from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afterglow.reports import timeline
from afterglow.reports.grids import Grid, ImageRow, sample_grid
from afterglow.reports.images import inline_image
from afterglow.reports.run import read_run


def test_sample_grid_shows_the_first_of_each_kind_at_every_evaluation(run_folder: Path) -> None:
    grid = sample_grid(read_run(run_folder))
    assert grid is not None
    assert grid.head == ["planted", "step 0", "step 10", "step 20", "step 30", "step 40", "seed 1"]
    assert [row.kind for row in grid.rows] == ["global"] * 2 + ["local"] * 2 + ["phantom"] * 4 + ["decoy"] * 2 + ["tint"] * 2
    assert all(len(row.images) == len(grid.head) for row in grid.rows)
    assert (grid.rows[0].remark, grid.rows[4].remark) == ("whole, 6 per epoch", "whole, never trained on")


def test_sample_grid_frames_memorized_generations(run_folder: Path) -> None:
    grid = sample_grid(read_run(run_folder))
    assert grid is not None
    framed = {row.label: [shown.copied for shown in row.images if shown] for row in grid.rows}
    assert framed["<b>global</b> & 0"] == [False, False, False, True, True, True, True]
    assert not any(framed["<b>phantom</b> & 2"])


def test_sample_grid_of_a_run_without_captions_shows_generations(make_run: Callable[..., Path]) -> None:
    grid = sample_grid(read_run(make_run(text=False)))
    assert grid is not None
    assert grid.head[0] == "step 0" and len(grid.rows) == 6 and all(all(row.images) for row in grid.rows)


def test_sample_grid_leaves_out_evaluations_without_images(run_folder: Path) -> None:
    (run_folder / "maps" / "step=10.safetensors").unlink()
    grid = sample_grid(read_run(run_folder))
    assert grid is not None and "step 10" not in grid.head


def test_sample_grid_has_the_steps_of_the_slider(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_STEPS", 3)
    grid = sample_grid(read_run(run_folder))
    assert grid is not None and grid.head == ["planted", "step 0", "step 20", "step 40", "seed 1"]
    assert all(len(row.images) == len(grid.head) for row in grid.rows)


def test_grid_side_depends_on_columns_and_image_size() -> None:
    small, large = (inline_image(np.zeros((3, side, side), dtype=np.uint8), "") for side in (16, 64))
    sides = [Grid([""] * count, [ImageRow("", "", "", [shown])]).side for count, shown in ((12, small), (13, small), (13, large))]
    assert sides == [64, 48, 96]


def test_sample_grid_without_plants_shows_each_caption_once(make_run: Callable[..., Path]) -> None:
    grid = sample_grid(read_run(make_run(kinds=())))
    assert grid is not None
    assert [(row.label, row.kind) for row in grid.rows] == [("held-out", "heldout")]
    assert grid.head == ["step 0", "step 10", "step 20", "step 30", "step 40", "seed 1"] and len(grid.rows[0].images) == 6
