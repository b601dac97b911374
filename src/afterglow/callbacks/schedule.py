"""When a probe looks (METHODS section 4)."""

import math


def evaluation_steps(num_steps: int, *, ratio: float = 1.5, first: float = 0.02) -> list[int]:
    """Step 0, then geometric from `first` of the run to its end, neighbors at most `ratio` apart (as far as whole steps allow)."""
    if ratio <= 1:
        raise ValueError(f"The ratio of neighboring probes must be over 1, and it is {ratio}.")
    start = max(1, math.floor(first * num_steps))
    gaps = max(1, math.ceil(math.log(num_steps / start) / math.log(ratio)))
    return sorted({0, num_steps, *(round(start * (num_steps / start) ** (i / gaps)) for i in range(gaps + 1))})
