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


def test_log_media_logs_one_grid_of_samples_for_each_kind(generations):
    logger = RecordingLogger()
    log_media(logger, measure_generations(generations), 7, maps=[])
    assert {key for key in logger.calls if key.startswith("media/samples")} == {f"media/samples/{kind}" for kind in generations.kind}
    images, captions, step = logger.calls["media/samples/local"][1]
    assert np.array_equal(images, generations.images[[4, 6]].numpy()) and captions == [generations.caption[4], generations.caption[6]]


def test_evaluation_table_has_images_planted_mask_and_mean_measurements_of_each_target(generations):
    result = measure_generations(generations)
    rows = result.measurements
    columns, images, masks = evaluation_table(result)
    assert len(images) == len(masks) == len(columns["plant_id"]) == 8 and set(columns["seeds"]) == {2}
    for i in (0, 2, 7):
        own = (rows["plant_id"] == columns["plant_id"][i]) & (rows["seed"] >= 0) & (rows["measure"] == "calibrated_l2")
        assert np.isclose(columns["calibrated_l2"][i], rows[own]["value"].mean())
        assert np.array_equal(images[i][0], generations.references[2 * i]) and np.array_equal(
            images[i][1:], generations.images[2 * i : 2 * i + 2]
        )
        assert masks[i].any() == (columns["kind"][i] != "control")
