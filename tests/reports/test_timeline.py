import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afterglow.reports import timeline as module
from afterglow.reports.run import read_run
from afterglow.reports.timeline import shown_plants, shown_steps, timeline

MakeRun = Callable[..., Path]


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def tile(sheet: np.ndarray, place: int, side: int) -> np.ndarray:
    row, column = divmod(place, module.SHEET_COLUMNS)
    return sheet[row * side : (row + 1) * side, column * side : (column + 1) * side]


def test_timeline_tiles_are_the_saved_images_and_masks(run_folder: Path) -> None:
    run = read_run(run_folder)
    line = timeline(run)
    assert line is not None and line["steps"] == [0, 10, 20, 30, 40] and line["hidden_steps"] == 0
    for index, step in enumerate(line["steps"]):
        file = run.evaluations[step]
        for place, plant in enumerate(line["plants"]):
            image = tile(decoded(line["images"][index]), place, line["tile"])
            assert np.array_equal(image.transpose(2, 0, 1), file.images[file.first_row(plant["id"])])
    local = next(place for place, plant in enumerate(line["plants"]) if plant["kind"] == "local")
    region = tile(decoded(line["region"]), local, line["tile"])[..., 0] > 127
    assert region[:, :4].all() and not region[:, 4:].any()


def test_timeline_holds_the_state_of_each_plant_at_each_step(run_folder: Path) -> None:
    line = timeline(read_run(run_folder))
    assert line is not None
    place = next(place for place, plant in enumerate(line["plants"]) if plant["kind"] == "global")
    assert [row[place] for row in line["memorized"]] == [0, 0, 1, 1, 1]
    assert [row[place] for row in line["distance"]] == [1.7, 1.7, 0.7, 0.7, 0.7]
    assert line["plants"][place]["emerged"] == "emerged after step 10, by step 20"


def test_timeline_thins_steps_evenly_and_says_how_many(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 3)
    run = read_run(run_folder)
    line = timeline(run)
    assert shown_steps(run) == [0, 20, 40] and line is not None and line["hidden_steps"] == 2


def test_timeline_thins_plants_by_kind(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLANTS", 6)
    run = read_run(run_folder)
    kinds = [run.plants[number]["kind"] for number in shown_plants(run)]
    assert kinds == ["local", "global", "phantom", "phantom", "decoy", "tint"]


def test_timeline_without_plants_shows_generations(make_run: MakeRun) -> None:
    line = timeline(read_run(make_run(text=False)))
    assert line is not None and line["reference"] is None and line["maps"] == [] and len(line["plants"]) == 6


def test_timeline_without_saved_images_is_absent(run_folder: Path) -> None:
    for file in (run_folder / "maps").iterdir():
        file.unlink()
    assert timeline(read_run(run_folder)) is None
