import numpy as np

from afterglow.callbacks.media import show, table
from afterglow.evaluation.measurements import judge
from afterglow.evaluation.result import EvaluationResult


class Notebook:
    """Stands in for the tracker."""

    def __init__(self) -> None:
        self.said = {}

    def __getattr__(self, method):
        return lambda key, *values, **named: self.said.setdefault(key, (method, values, named))


def test_samples_masks_and_histograms_of_what_is_asked_for(generations):
    rows, maps, thresholds = judge(generations)
    notebook = Notebook()
    show(notebook, EvaluationResult(rows, generations, maps, thresholds), rows, 7, maps=["score_difference.summed"])
    assert {key for key in notebook.said if key.startswith("media/masks")} == {"media/masks/score_difference.summed"}
    images, masks, captions, step = notebook.said["media/masks/score_difference.summed"][1]
    assert len(images) == len(captions) == 2 and set(masks) == {"planted", "predicted"} and step == 7  # one seed of each local plant
    assert np.array_equal(masks["planted"], generations.eval_mask[[4, 6], 0].numpy())
    assert {key.split("/")[2] for key in notebook.said if key.startswith("media/end_token_be")} == {"global", "local", "none"}
    assert "tables/probe" not in notebook.said


def test_the_last_probe_shows_every_map_and_the_table(generations):
    rows, maps, thresholds = judge(generations)
    notebook = Notebook()
    show(notebook, EvaluationResult(rows, generations, maps, thresholds), rows, 7, maps=None)
    assert {f"media/masks/{name}" for name in maps} <= set(notebook.said) and "tables/probe" in notebook.said


def test_a_row_of_the_table_holds_the_numbers_of_its_generation(generations):
    rows, maps, thresholds = judge(generations)
    columns, images, masks = table(EvaluationResult(rows, generations, maps, thresholds), rows)
    assert len(images) == len(columns["plant_id"]) == len(masks["planted"]) == 16
    for i in (0, 5, 15):
        one = rows[
            (rows["plant_id"] == columns["plant_id"][i]) & (rows["seed"] == columns["seed"][i]) & (rows["measure"] == "calibrated_l2")
        ]
        assert columns["calibrated_l2"][i] == one["value"].item()
