from dataclasses import replace

import pytest
import torch

from afterglow.analysis.thresholds import control_thresholds, published_thresholds
from afterglow.generations import Generations


def generations(kinds, norms, layers=("down_blocks.0.a",)):
    """T = 2 steps of Delta with these norms at the first step and twice these at the second; a flat end-token map."""
    num = len(kinds)
    rms = torch.tensor([norms, [2 * norm for norm in norms]]) / 16**0.5
    ends = {(1, layer): torch.full((num, 16, 6), 0.25) for layer in layers}
    return Generations(
        images=torch.zeros(num, 1, 4, 4, dtype=torch.uint8), caption=("",) * num, seed=torch.zeros(num), timesteps=torch.tensor([9, 1]),
        kind=tuple(kinds), guidance=torch.ones(2, num, 1, 4, 4), guidance_rms=rms, end_attention=ends,
    )  # fmt: skip


def test_the_99th_percentile_control_thresholds_at_each_step():
    norms = torch.arange(101.0).tolist()
    parts = [generations(["control"] * 101, norms), generations(["global", "heldout"], [1e6, 1e6])]
    found = control_thresholds(parts)
    assert found.magnitude == pytest.approx((99.0, 198.0)) and found.search == found.magnitude[0]
    assert found.local == pytest.approx(99.0, rel=1e-3)  # a flat map: LD is the magnitude
    assert found.origin == "99th percentile of 101 generations of controls"


def test_without_the_authors_layers_there_is_no_local_threshold_and_without_controls_none():
    assert control_thresholds([generations(["control"], [1.0], layers=("mid_block.a",))]).local is None
    assert control_thresholds([replace(generations(["control"], [1.0]), end_attention=None)]).local is None
    with pytest.raises(ValueError, match="no control was sampled"):
        control_thresholds([generations(["global"], [1.0])])


def test_published_ones():
    found = published_thresholds(3)
    assert found.magnitude == (3.0, 3.0, 3.0) and found.local == found.search == 1.0
