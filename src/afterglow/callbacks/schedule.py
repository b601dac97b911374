"""The steps of a training at which the model is evaluated (docs/methods.md#evaluation-schedule)."""

import math

from afterglow.errors import require, require_fraction

MIN_RATIO = 1.001


def evaluation_steps(num_steps: int, *, ratio: float = 1.5, first: float = 0.02) -> list[int]:
    """Step 0, then geometrically spaced steps up to the last.

    Args:
        num_steps: length of the training.
        ratio: largest ratio of two neighboring steps, as far as whole steps allow.
        first: the first step after 0, as a fraction of the training.

    Raises:
        AfterglowError: the ratio is below MIN_RATIO, or `first` is not in [0, 1].
    """
    require("monitor.step_ratio", ratio, MIN_RATIO <= ratio < math.inf, f"a number from {MIN_RATIO}")
    require_fraction(**{"monitor.first_fraction": first})
    start = max(1, math.floor(first * num_steps))
    gaps = max(1, math.ceil(math.log(num_steps / start) / math.log(ratio)))
    return sorted({0, num_steps, *(round(start * (num_steps / start) ** (i / gaps)) for i in range(gaps + 1))})
