import pytest
from tqdm import tqdm

from afterglow.callbacks.monitor import SHOWN_KINDS
from afterglow.callbacks.progress import LINE, _postfix


@pytest.mark.parametrize(
    "fractions, expected",
    [({"global": 0.5, "phantom": 0.0}, "loss 0.123, 64 images/s, memorized: global 50%, phantom 0%"), ({}, "loss 0.123, 64 images/s")],
)
def test_postfix_shows_loss_speed_and_memorized_fractions(fractions, expected):
    assert _postfix(0.1234, 63.7, fractions) == expected


def test_line_of_a_training_shows_all_within_100_columns():
    fractions = {kind: 1.0 for kind in SHOWN_KINDS if kind != "natural"}
    line = tqdm.format_meter(600, 1200, 300, bar_format=LINE, postfix=_postfix(0.1234, 640, fractions))
    assert "600/1200 [05:00<05:00, loss 0.123" in line and "phantom 100%" in line and len(line) <= 100
