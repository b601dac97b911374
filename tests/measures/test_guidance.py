import math

import numpy as np
import pytest
import torch

from afterglow.measures.guidance import guidance_norm, score_difference


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
