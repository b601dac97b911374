"""Products with a Jacobian that is known: a network whose prediction is a matrix times its input."""

import math

import numpy as np
import pytest
import torch

from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.observers import concentration
from afterglow.sampling.recorder import CaptureConfig

SIDE, SIZE = 4, 3 * 4 * 4


class Linear(Denoiser):
    """eps_c = A_c x and eps_u = A_u x; any caption but the empty one is conditional."""

    has_text = True

    def __init__(self, cond, uncond, **training):
        super().__init__(**training)
        self.unet = torch.nn.Module()
        self.unet.register_parameter("weight", torch.nn.Parameter(torch.stack([uncond, cond])))

    def latent_shape(self):
        return 3, SIDE, SIDE

    def condition(self, captions):
        told = torch.tensor([[[float(bool(caption))]] for caption in captions])
        return TextConditioning(told, torch.ones(len(captions), 1, dtype=torch.bool), torch.ones(len(captions), dtype=torch.long))

    def forward(self, noisy, timesteps, condition):
        matrices = self.unet.weight[condition.encoder_hidden_states[:, 0, 0].long()]
        return torch.einsum("bij,bj->bi", matrices, noisy.flatten(1)).view_as(noisy)


def matrices(scale=0.05):
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(SIZE, SIZE, generator=generator) for _ in range(2)]


def linear(prediction="epsilon", **options):
    cond, uncond = matrices(**options)
    return Linear(cond, uncond, noise_scheduler={"prediction_type": prediction}).eval(), (cond - uncond).double().numpy()


SAMPLER = Sampler(steps=3)
NO_PLANTS = {"tokens": False, "end_steps": ()}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sharpness_is_the_jacobian_of_the_score_difference_times_itself(prediction):
    model, difference = linear(prediction)
    found = generate(model, ["a", "b"], [0, 1], SAMPLER, CaptureConfig(extras=["sharpness"], **NO_PLANTS))
    t = int(found.timesteps[0])
    alpha_bar = model.scheduler.alphas_cumprod[t].item()
    jacobian = difference * (math.sqrt(alpha_bar) if prediction == "v_prediction" else 1)  # of Delta in units of eps
    for row, seed in enumerate((0, 1)):
        noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).double().numpy().ravel()
        sigma = math.sqrt(1 - alpha_bar)
        score_difference = -jacobian @ noise / sigma
        expected = np.linalg.norm(-jacobian @ score_difference / sigma)
        assert found.extras["sharpness"][row].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_low_noise_cosine_is_that_of_the_noise_and_the_guidance_at_each_pixel(prediction):
    cond, uncond = (matrix.double().numpy() for matrix in matrices())
    model, _ = linear(prediction)
    found = generate(model, ["a"], [1], SAMPLER, CaptureConfig(extras=["low_noise_cosine"], **NO_PLANTS))
    noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double().numpy().ravel()
    alpha_bar = model.scheduler.alphas_cumprod[41].item()
    velocity = prediction == "v_prediction"
    both = [math.sqrt(alpha_bar) * (m @ noise) + math.sqrt(1 - alpha_bar) * noise if velocity else m @ noise for m in (uncond, cond)]
    unconditional, delta = both[0].reshape(3, -1), (both[1] - both[0]).reshape(3, -1)
    cosines = [
        float(unconditional[:, p] @ delta[:, p]) / (np.linalg.norm(unconditional[:, p]) * np.linalg.norm(delta[:, p]))
        for p in range(SIDE * SIDE)
    ]
    assert found.extras["low_noise_cosine"][0].item() == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)


def test_update_norms_are_the_distances_of_the_states_that_the_sampler_passes():
    model, _ = linear()
    found = generate(model, ["a", "b"], [0, 1], SAMPLER, CaptureConfig(extras=["update_norms"], **NO_PLANTS)).extras["update_norms"]
    scheduler = SAMPLER.build(model.scheduler)
    for row, seed in enumerate((0, 1)):
        state = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        for index, timestep in enumerate(scheduler.timesteps):
            predicted = model(state, timestep.expand(1), model.condition(["a"]))
            moved = scheduler.step(predicted, timestep, state).prev_sample.detach()
            assert found[row, index].item() == pytest.approx(float((moved - state).square().sum().sqrt()), rel=1e-4)
            state = moved


def test_hutchinsons_curvature_is_exact_for_a_diagonal_jacobian_and_comes_near_for_another():
    diagonal = torch.randn(SIZE, generator=torch.Generator().manual_seed(5))
    model = Linear(torch.diag(0.1 * diagonal), torch.zeros(SIZE, SIZE)).eval()
    found = generate(model, ["a"], [3], SAMPLER, CaptureConfig(extras=["curvature"], curvature_vectors=1, **NO_PLANTS))
    expected = -0.1 * diagonal.view(3, SIDE, SIDE).sum(0)
    torch.testing.assert_close(found.extras["curvature"][0], expected, rtol=1e-4, atol=1e-5)
    model, difference = linear()
    wanted = -np.diag(difference).reshape(3, SIDE, SIDE).sum(0)
    errors = []
    for vectors in (4, 400):
        capture = CaptureConfig(extras=["curvature"], curvature_vectors=vectors, **NO_PLANTS)
        errors.append(np.abs(generate(model, ["a"], [3], SAMPLER, capture).extras["curvature"][0].numpy() - wanted).mean())
    assert errors[1] < errors[0] / 4  # 1 / sqrt(100), and some luck allowed for


def test_curvature_of_a_generation_does_not_depend_on_its_batch():
    model, _ = linear()
    capture = CaptureConfig(extras=["curvature"], curvature_vectors=2, **NO_PLANTS)
    together = generate(model, ["a", "b", "c"], [0, 1, 2], SAMPLER, capture, batch_size=3)
    apart = generate(model, ["a", "b", "c"], [0, 1, 2], SAMPLER, capture, batch_size=1)
    torch.testing.assert_close(together.extras["curvature"], apart.extras["curvature"], rtol=1e-4, atol=1e-6)


def test_the_basin_curve_is_the_magnitude_on_the_way_without_guidance():
    model, _ = linear()
    capture = CaptureConfig(extras=["basin_curve"], **NO_PLANTS)
    found = generate(model, ["a", "b"], [0, 1], SAMPLER, capture)
    unguided = generate(model, ["a", "b"], [0, 1], Sampler(steps=3, guidance_scale=0.0), CaptureConfig(**NO_PLANTS))
    torch.testing.assert_close(found.extras["basin_curve"], unguided.guidance_rms.T * math.sqrt(SIZE))
    assert not torch.allclose(found.guidance_rms, unguided.guidance_rms)  # the caption moved the sampler otherwise
    uncaptioned = generate(model, ["", ""], [0, 1], SAMPLER, CaptureConfig(**NO_PLANTS))
    assert torch.equal(unguided.images, uncaptioned.images)


def test_the_difference_to_an_early_checkpoint_is_taken_on_the_models_own_way():
    model, _ = linear()
    early, _ = linear(scale=0.02)
    capture = CaptureConfig(extras=["early_difference"], **NO_PLANTS)
    found = generate(model, ["a", "b"], [0, 1], SAMPLER, capture, early=early)
    plain = generate(model, ["a", "b"], [0, 1], SAMPLER, CaptureConfig(**NO_PLANTS))
    assert torch.equal(found.images, plain.images)
    scheduler = SAMPLER.build(model.scheduler)
    sample = torch.stack([torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    total = torch.zeros(2, SIDE, SIDE)
    condition = model.condition(["a", "b"])
    with torch.no_grad():
        for t in scheduler.timesteps:
            now, before = (some(sample, t.expand(2), condition) for some in (model, early))
            last = (now - before).square().sum(1)
            total += last
            sample = scheduler.step(now, t, sample).prev_sample
    torch.testing.assert_close(found.extras["early_difference.last"], last, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.extras["early_difference.summed"], total, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_derived_is_refused_by_name():
    model, _ = linear()
    with pytest.raises(ValueError, match="early_difference requires an early checkpoint"):
        generate(model, ["a"], [0], SAMPLER, CaptureConfig(extras=["early_difference"]))
    with pytest.raises(ValueError, match="not 'hessian'"):
        CaptureConfig(extras=["hessian"])
    with pytest.raises(ValueError, match="not 'eos'"):
        CaptureConfig(end_token="eos")
    model.has_text = False
    for name in ("sharpness", "curvature", "basin_curve"):
        with pytest.raises(ValueError, match=f"{name} .*Linear has no captions"):
            generate(model, ["a"], [0], SAMPLER, CaptureConfig(extras=[name]))


def test_concentration_is_one_for_one_pixel_and_none_for_all_alike():
    one = torch.eye(6)[None]
    assert concentration(one).tolist() == [[1.0] * 6]
    assert concentration(torch.full((1, 6, 6), 1 / 6)).tolist()[0] == pytest.approx([0.0] * 6, abs=1e-6)
