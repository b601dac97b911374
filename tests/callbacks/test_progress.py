import pytest

from afterglow.callbacks.progress import _postfix


@pytest.mark.parametrize(
    "fractions, expected",
    [({"global": 0.5, "phantom": 0.0}, "loss 0.123, 64 images/s, memorized: global 50%, phantom 0%"), ({}, "loss 0.123, 64 images/s")],
)
def test_postfix_shows_loss_speed_and_memorized_fractions(fractions, expected):
    assert _postfix(0.1234, 63.7, fractions) == expected
