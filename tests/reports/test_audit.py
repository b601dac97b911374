from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from afterglow.analysis.audit import NO_COPY, PART_COPY, WHOLE_COPY, Unseen
from afterglow.generations import Generations
from afterglow.reports.audit import Audit, audit_text, waiting_text, write_audit


def made(verdicts, whole=2.0):
    count = len(verdicts)
    table = pd.DataFrame({"verdict": verdicts, "distance": 0.3, "generation": 0, "generations": 1, "shared_with": 0, "duplicates": 0})
    table["calibrated_l2"] = [0.4 if verdict != NO_COPY else np.nan for verdict in verdicts]
    table["tiles"] = [[1, 3] if verdict == PART_COPY else [] for verdict in verdicts]
    table["unseen_as_close"] = 0
    unseen = Unseen(np.full(40, whole), np.full(40, 2.0))
    names = [f"{number}.png" for number in range(count)]
    pixels = np.zeros((count, 3, 8, 8), np.uint8)
    return Audit(
        [table.assign(checkpoint="x", since="x")], names, ["a cat"] * count, pixels, 2, unseen, False, ["a cat"] * 4, [], 4, {"Model": "m"}
    )


def test_text_has_the_answer_the_floor_and_the_copies():
    said = audit_text(made([NO_COPY, PART_COPY, WHOLE_COPY]))
    assert "Of 3 images, 1 are copied whole and 1 in part by 4 generations" in said and "0 of 20 (0.0% to 16.8%)" in said
    assert (
        said.index("2.png") < said.index("1.png") and "0.png" not in said and "x 50 to 100 %, y 0 to 100 %" in said and "since" not in said
    )


def test_nothing_copied_has_its_bound_and_a_rule_without_power_is_said():
    said = audit_text(made([NO_COPY] * 3, whole=0.01))
    assert "Nothing is copied: none of 4 generations" in said and "at most 60.2%" in said  # 1 - .025^(1/4)
    assert "pass the test" not in said and "The limit for 'copied whole' is 0.01" in said


@pytest.mark.parametrize(("seconds", "text"), [(42, "42 seconds"), (600, "10 minutes"), (9000, "2.5 hours")])
def test_the_expected_time_is_readable(seconds, text):
    said = waiting_text(["a", "b"], ["a"] * 1000, 3, seconds)
    assert text in said and "1,000 images from each of 3 checkpoints with 1 of 2 captions" in said


def test_images_that_share_a_copy_are_one_card_and_one_line(tmp_path):
    audit = made([WHOLE_COPY, WHOLE_COPY, NO_COPY, NO_COPY])
    Generations(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), ("a cat",) * 4, torch.arange(4), torch.arange(2), provenance={}).save(
        tmp_path / "p"
    )
    numbers = write_audit(replace(audit, parts=[tmp_path / "p"]), tmp_path)
    page = (tmp_path / "audit.html").read_text()
    assert page.count('<li class="card') == 3 and "3 of 4 images are shown" in page and numbers["audit/copied_whole"] == 0.5
    assert len(pd.read_parquet(tmp_path / "audit.parquet")) == 4 and "1.png" not in audit_text(audit)


def test_a_test_that_more_than_a_twentieth_of_other_images_pass_is_said():
    audit = made([NO_COPY])
    near = Unseen(np.tile([2.0, 0.5], 20), audit.unseen.tile)
    assert "20 of 20 images that are no copies pass the test for 'copied whole'" in audit_text(replace(audit, unseen=near))
