import torch

from afterglow.measures.guidance import magnitude
from afterglow.mitigations.inference.passes import first_magnitude, guidance_delta, sample_steps
from afterglow.sampling.loop import generate
from afterglow.sampling.recorder import CaptureConfig


@torch.no_grad()
def test_a_walk_is_what_generate_does(heard, setup, sampler):
    generations = generate(heard, setup.captions, setup.seeds, sampler, CaptureConfig(tokens=False, end_steps=()))
    steps = list(sample_steps(heard, setup))
    assert [halves.timestep for halves, _ in steps] == generations.timesteps.tolist() and [halves.index for halves, _ in steps] == list(
        range(6)
    )
    shown = ((steps[-1][1] / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (shown - generations.images.float()).abs().max() <= 1
    norms = torch.stack([guidance_delta(heard, h.uncond, h.cond, h.timestep).flatten(1).norm(dim=1) for h, _ in steps]).mean(0)
    torch.testing.assert_close(norms, magnitude(generations), rtol=1e-4, atol=0)
    torch.testing.assert_close(first_magnitude(heard, setup), magnitude(generations, 1), rtol=1e-4, atol=0)


@torch.no_grad()
def test_delta_of_velocities_is_in_units_of_the_noise(small_captioned):
    model = small_captioned(noise_scheduler={"prediction_type": "v_prediction"})
    noisy, one, two = (torch.randn(2, 3, 8, 8) for _ in range(3))
    expected = model.to_noise(two, noisy, 300) - model.to_noise(one, noisy, 300)
    torch.testing.assert_close(guidance_delta(model, one, two, 300), expected, rtol=1e-4, atol=1e-5)
