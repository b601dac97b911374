import torch

from afterglow.collect import Capture, generate
from afterglow.measures.guidance import magnitude
from afterglow.mitigations.passes import delta_of, first_magnitude, walk


@torch.no_grad()
def test_a_walk_is_what_generate_does(heard, course, sampler):
    evidence = generate(heard, course.captions, course.seeds, sampler, Capture(tokens=False, end_steps=()))
    steps = list(walk(heard, course))
    assert [halves.timestep for halves, _ in steps] == evidence.timesteps.tolist() and [halves.index for halves, _ in steps] == list(
        range(6)
    )
    shown = ((steps[-1][1] / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (shown - evidence.images.float()).abs().max() <= 1
    norms = torch.stack([delta_of(heard, h.uncond, h.cond, h.timestep).flatten(1).norm(dim=1) for h, _ in steps]).mean(0)
    torch.testing.assert_close(norms, magnitude(evidence), rtol=1e-4, atol=0)
    torch.testing.assert_close(first_magnitude(heard, course), magnitude(evidence, 1), rtol=1e-4, atol=0)


@torch.no_grad()
def test_delta_of_velocities_is_in_units_of_the_noise(small_captioned):
    model = small_captioned(noise={"prediction_type": "v_prediction"})
    noisy, one, two = (torch.randn(2, 3, 8, 8) for _ in range(3))
    expected = model.to_noise(two, noisy, 300) - model.to_noise(one, noisy, 300)
    torch.testing.assert_close(delta_of(model, one, two, 300), expected, rtol=1e-4, atol=1e-5)
