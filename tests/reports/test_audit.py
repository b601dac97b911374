import pandas as pd
import pytest
from audit_results import made

from afterglow.analysis.audit import NO_COPY, PART_COPY, WHOLE_COPY
from afterglow.analysis.audit_result import AuditResult
from afterglow.reports.audit import audit_text, waiting_text, write_audit


def test_text_has_the_answer_the_false_positives_and_the_copies():
    said = audit_text(made([NO_COPY, PART_COPY, WHOLE_COPY]))
    assert "Of 3 images, 1 are copied whole and 1 in part by 4 generations" in said and "0 of 20 (0.0% to 16.8%)" in said
    assert (
        said.index("2.png") < said.index("1.png") and "0.png" not in said and "x 50 to 100 %, y 0 to 100 %" in said and "since" not in said
    )


def test_nothing_copied_has_its_bound_and_a_rule_without_power_is_said():
    said = audit_text(made([NO_COPY] * 3, limit=0.01))
    assert "Nothing is copied: none of 4 generations" in said and "at most 60.2%" in said  # 1 - .025^(1/4)
    assert "pass the test" not in said and "The limit for 'copied whole' is 0.01" in said


def test_without_held_out_images_no_interval_is_printed_and_the_text_says_why():
    said = audit_text(made([NO_COPY] * 3, passed=1))
    assert "false positives (95 %)" in said and "1 of 20 (0.1% to 24.9%)" in said and "calibrate a distance: 3." in said
    said = audit_text(made([NO_COPY] * 3, passed=1, held_out=False))
    assert "| your images that pass" in said and "| 1 of 20 " in said and "%" not in said
    assert "No image was given that the model never saw" in said and "Nothing is copied" in said and "calibrate a distance: 3." in said


@pytest.mark.parametrize(("seconds", "text"), [(42, "42 seconds"), (600, "10.0 minutes"), (9000, "2.5 hours")])
def test_the_expected_time_is_readable(seconds, text):
    said = waiting_text(["a", "b"], ["a"] * 1000, 3, seconds)
    assert text in said and "1,000 images from each of 3 checkpoints with 1 of 2 captions" in said


def test_images_that_share_a_copy_are_one_card_and_one_line(tmp_path):
    result = made([WHOLE_COPY, WHOLE_COPY, NO_COPY, NO_COPY])
    numbers = write_audit(result, tmp_path)
    page = (tmp_path / "audit.html").read_text()
    assert page.count('<li class="card') == 3 and "3 of 4 images are shown" in page and numbers["audit/copied_whole"] == 0.5
    assert len(pd.read_parquet(tmp_path / "audit.parquet")) == 4 and "1.png" not in audit_text(result)
    again = AuditResult.load(tmp_path)
    assert "2 are copied whole and 0 in part by 4 generations (distinct copies: 1)." in page and "distinct copies" in audit_text(again)
    assert audit_text(again) == audit_text(result) and again.checkpoints == ["x"]


def test_a_test_that_more_than_a_twentieth_of_other_images_pass_is_said():
    assert "20 of 20 images that are not copies pass the test for 'copied whole'" in audit_text(made([NO_COPY], passed=20))
