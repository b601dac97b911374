from dataclasses import replace

import torch

from afterglow.mitigations.inference.noise_selection import APART, NoiseSelection
from afterglow.mitigations.inference.passes import first_magnitude


@torch.no_grad()
def test_it_takes_the_noise_with_the_smallest_magnitude_of_each_generation(heard, setup):
    found = NoiseSelection(4)(heard, setup)
    tried = [[seed + turn * APART for seed in setup.seeds] for turn in range(4)]
    norms = torch.stack([first_magnitude(heard, replace(setup, seeds=seeds)) for seeds in tried])
    assert found.seeds == [tried[best][row] for row, best in enumerate(norms.argmin(0).tolist())]
    torch.testing.assert_close(found.notes["mitigation.magnitude"], norms.amin(0))
    assert list(NoiseSelection(1)(heard, setup).seeds) == list(setup.seeds) and found.condition is setup.condition
