import numpy as np

from afterglow.callbacks.media import evaluation_table, log_media
from afterglow.evaluation.measurements import measure_generations


class RecordingLogger:
    """Keeps the first call for each key."""

    def __init__(self) -> None:
        self.calls = {}

    def __getattr__(self, method):
        return lambda key, *values, **named: self.calls.setdefault(key, (method, values, named))


def test_log_media_logs_samples_requested_masks_and_histograms(generations):
    logger = RecordingLogger()
    log_media(logger, measure_generations(generations), 7, maps=["score_difference.summed"])
    assert {key for key in logger.calls if key.startswith("media/masks")} == {"media/masks/score_difference.summed"}
    images, masks, captions, step = logger.calls["media/masks/score_difference.summed"][1]
    assert len(images) == len(captions) == 2 and set(masks) == {"planted", "predicted"} and step == 7  # one seed of each local plant
    assert np.array_equal(masks["planted"], generations.eval_mask[[4, 6], 0].numpy())
    assert {key.split("/")[2] for key in logger.calls if key.startswith("media/end_token/")} == {"global", "local", "none"}
    assert "tables/evaluation" not in logger.calls


def test_log_media_at_the_last_evaluation_logs_all_maps_and_the_table(generations):
    logger, result = RecordingLogger(), measure_generations(generations)
    log_media(logger, result, 7, maps=None)
    assert {f"media/masks/{name}" for name in result.maps} <= set(logger.calls) and "tables/evaluation" in logger.calls


def test_evaluation_table_has_the_measurements_and_planted_mask_of_each_generation(generations):
    result = measure_generations(generations)
    rows = result.measurements
    columns, images, masks = evaluation_table(result)
    assert len(images) == len(columns["plant_id"]) == len(masks["planted"]) == 16
    for i in (0, 5, 15):
        own = (rows["plant_id"] == columns["plant_id"][i]) & (rows["seed"] == columns["seed"][i]) & (rows["measure"] == "calibrated_l2")
        assert columns["calibrated_l2"][i] == rows[own]["value"].item()
        assert masks["planted"][i].any() == (columns["kind"][i] != "control")
