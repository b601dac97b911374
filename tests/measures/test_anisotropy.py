import math

import pytest
import torch

from afterglow.measures.anisotropy import anisotropy, low_noise_cosine


def test_anisotropy_is_the_norm_in_stable_diffusions_size_and_twice_the_cosine(make_generations):
    cosine = torch.tensor([0.5, -0.25, 0.0, 1.0])
    generations = make_generations(extras={"low_noise_cosine": cosine})
    delta = generations.guidance[0].double() * generations.guidance_rms[0].double()[:, None, None, None]
    for row, found in enumerate(anisotropy(generations).tolist()):
        norm = math.sqrt(sum(value * value for value in delta[row].flatten().tolist()))
        assert found == pytest.approx(norm * math.sqrt(4 * 64 * 64 / delta[row].numel()) + 2 * float(cosine[row]), rel=1e-3)
    assert torch.equal(low_noise_cosine(generations), cosine)
