import math

import pytest
import torch

from afterglow.functional.guidance import first_local_minimum
from afterglow.measures.basin import basin_depth, basin_step

CURVES = [
    ([3.0, 1.0, 2.0, 0.5, 0.7], 1),  # at once; the second minimum is deeper and does not count
    ([5.0, 4.0, 3.0, 2.5, 2.6], 3),  # late: seen only at the last step
    ([5.0, 4.0, 3.0, 2.0, 1.0], None),  # never
    ([1.0, 2.0, 3.0, 4.0, 5.0], None),  # rising from the start: its first value is no local minimum
    ([3.0, 2.0, 2.0, 3.0, 2.9], None),  # a plateau is not strict
]


@pytest.mark.parametrize(("curve", "step"), CURVES)
def test_the_first_strict_local_minimum(curve, step):
    assert first_local_minimum(torch.tensor(curve)) == step


def test_step_and_depth_are_absent_without_a_minimum(make_generations):
    curves = torch.tensor([curve for curve, _ in CURVES])
    generations = make_generations(len(CURVES), extras={"basin_curve": curves})
    for (curve, step), found, depth in zip(CURVES, basin_step(generations).tolist(), basin_depth(generations).tolist(), strict=True):
        if step is None:
            assert math.isnan(found) and math.isnan(depth)
        else:
            assert found == step and depth == pytest.approx(1 - curve[step] / curve[0])


def test_a_sampler_of_two_steps_has_no_minimum(make_generations):
    assert first_local_minimum(torch.tensor([2.0, 1.0])) is None
