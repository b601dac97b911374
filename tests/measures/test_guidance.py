import math

import numpy as np
import pytest
import torch

from afterglow.functional.guidance import first_local_minimum
from afterglow.measures.guidance import basin_depth, basin_step, guidance_norm, score_difference


def stored_delta(generations):
    """Delta as it was kept, float64 [T, B, C, h, w]."""
    return generations.guidance.double().numpy() * generations.guidance_rms.double().numpy()[..., None, None, None]


def norm(values):
    return math.sqrt(sum(value * value for value in np.ravel(values).tolist()))


@pytest.mark.parametrize(("num_steps", "used"), [(1, 1), (3, 3), (None, 5), (10, 5)])
def test_guidance_norm_is_the_mean_norm_of_the_stored_differences(make_generations, num_steps, used):
    generations = make_generations()
    delta = stored_delta(generations)
    expected = [sum(norm(delta[t, j]) for t in range(used)) / used for j in range(4)]
    torch.testing.assert_close(guidance_norm(generations, num_steps), torch.tensor(expected), rtol=1e-3, atol=0)


def test_score_difference_at_the_last_step_and_summed(make_generations):
    generations = make_generations()
    delta = stored_delta(generations)
    last, summed = np.zeros((4, 8, 8)), np.zeros((4, 8, 8))
    for j in range(4):
        for c in range(3):
            last[j] += delta[4, j, c] ** 2
            for t in range(5):
                summed[j] += delta[t, j, c] ** 2
    torch.testing.assert_close(score_difference(generations, summed=False), torch.tensor(last).float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(score_difference(generations, summed=True), torch.tensor(summed).float(), rtol=1e-4, atol=1e-6)


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
