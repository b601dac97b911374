from dataclasses import replace

import torch

from afterglow.mitigations.inference.noise_selection import SEED_STEP, NoiseSelection
from afterglow.sampling.loop import initial_delta_norm


@torch.no_grad()
def test_it_takes_the_noise_with_the_smallest_magnitude_of_each_generation(heard, setup):
    found = NoiseSelection(4)(heard, setup)
    tried = [[seed + turn * SEED_STEP for seed in setup.seeds] for turn in range(4)]
    norms = torch.stack([initial_delta_norm(heard, replace(setup, seeds=seeds)) for seeds in tried])
    assert found.seeds == [tried[best][row] for row, best in enumerate(norms.argmin(0).tolist())]
    torch.testing.assert_close(found.extras["mitigation.magnitude"], norms.amin(0))
    assert list(NoiseSelection(1)(heard, setup).seeds) == list(setup.seeds) and found.condition is setup.condition
