"""The audit of a training; tests/test_resume.py has the same numbers after a resume, tests/callbacks/test_monitor.py the page."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.callbacks.training_audit import TrainingAudit, warning
from afterglow.callbacks.training_evaluation import EvaluationSettings
from afterglow.errors import AfterglowError
from afterglow.evaluation.evaluate import Processes
from afterglow.generations import Generations
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling.loop import Sampler

NOTHING = dict.fromkeys(("num_global", "num_local", "num_decoys", "num_tints", "num_backgrounds", "num_decoy_images"), 0)


@pytest.fixture
def begin(images, small_plain, tmp_path):
    """begin(*steps, heldout) => the audit of a set with nothing planted, continued after these steps."""

    def make(*steps, heldout=12):
        planted = plant_images(images, PlantingConfig(**NOTHING, num_heldout=heldout), set_size=40, seed=1)
        settings = EvaluationSettings(num_audited=6, batch_size=8, sampler=Sampler(steps=1))
        return TrainingAudit(tmp_path, settings, planted, small_plain(), Processes(), steps)

    return make


def generated(audit, copied):
    """Noise, and copies of these training images."""
    made = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    made[: len(copied)] = audit.images.pixels[copied]
    plain = Generations(torch.from_numpy(made), ("",) * 6, torch.arange(6), torch.arange(1), provenance={})
    return audit.request.attach(plain, range(6))


def test_the_first_copy_that_two_evaluations_find_is_warned_of_once_by_its_name(begin, tmp_path, caplog):
    audit, sent = begin(), []
    logger = SimpleNamespace(
        alert=lambda title, text: sent.append(text),
        log_metrics=lambda values, step: sent.append((step, values)),
        log_rows=lambda key, columns, images, masks, step: sent.append((key, columns["file_name"], images[0].shape)),
    )
    first, second = (audit.images.names[row] for row in (3, 5))
    for step, copied in ((0, []), (10, [3]), (20, [3, 5]), (30, [3, 5])):
        audit.record(generated(audit, copied), step, step / 2, logger, last=step == 30)
    said = [text for text in sent if isinstance(text, str)]
    assert said == [f"'{first}' is copied at step 20 and at the evaluation before."] == [line.message for line in caplog.records]
    rows = pd.read_parquet(tmp_path / "audit/audit.parquet").set_index("file_name")
    assert rows.loc[[first], "verdict"].tolist() == ["not copied", *["copied whole"] * 3] and rows.loc[first, "since"].iloc[-1] == "step=10"
    assert (rows["verdict"] != "not copied").sum() == 5 and (rows["unseen"][rows["verdict"] != "not copied"] == 12).all()
    assert (30, {"audit/copied_whole": 2 / 40, "audit/copied_in_part": 0.0}) in sent
    (table,) = [entry for entry in sent if entry[0] == "tables/audit"]
    assert set(table[1][:2]) == {first, second} and table[2] == (2, 3, 8, 8)
    again = begin(0, 10)  # resumed after step 10: the warning comes again at the same step
    again.record(generated(again, [3, 5]), 20, 10, None, last=False)
    assert caplog.records[-1].message == said[0]


def test_samples_are_those_of_the_captions(begin, small_plain):
    audit = begin()
    one, other, again = (audit.sample(small_plain(), step) for step in (0, 10, 0))
    assert len(one) == 6 and torch.equal(one.images, again.images) and not torch.equal(one.images, other.images)


def test_what_a_model_shows_before_its_first_step_is_not_warned_of(begin, caplog):
    audit = begin()
    for step, copied in ((0, [3]), (10, [3]), (20, [3])):
        audit.record(generated(audit, copied), step, 1, None, last=False)
    assert not caplog.records and not audit.warned


def test_a_set_without_held_out_images_is_refused(begin):
    with pytest.raises(AfterglowError, match="num_heldout must be at least 2"):
        begin(heldout=0)


def test_the_warning_counts_the_others():
    assert warning(["a.png", "b.png", "c.png"], 7).endswith("before, and 2 other images as well.")
