"""Flow matching, and a transformer that is trained with it, beside diffusers' own formulas and pipelines."""

import numpy as np
import pytest
import torch
from attention_reference import written_out
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from afterglow.errors import AfterglowError
from afterglow.evaluation.evaluate import build_sampler
from afterglow.mitigations.training.timestep_sampling import TimestepSampling
from afterglow.models.io import export, open_model
from afterglow.models.noise import noise_levels, noise_schedule, prediction_of, training_timesteps
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.dataset import Batch
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

TRANSFORMER = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "patch_size": 2}
FLOW = {"prediction_type": "flow_prediction"}
EULER = Sampler("FlowMatchEulerDiscreteScheduler", 4, 2.0, {})


@pytest.fixture
def transformer(caption):
    def make(**options):
        return caption(**{"unet": TRANSFORMER, "network": "PixArtTransformer2DModel", "noise_scheduler": FLOW} | options)

    return make


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_diffusion_is_that_of_diffusers(kind):
    scheduler = DDPMScheduler(prediction_type=kind)
    clean, noise, times = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0, 500, 999])
    signal, spread = noise_levels(scheduler, times, clean)
    noisy = signal * clean + spread * noise
    assert torch.equal(noisy, scheduler.add_noise(clean, noise, times)) and torch.equal(training_timesteps(scheduler, times), times)
    target = prediction_of(scheduler).target(clean, noise, signal, spread)
    assert torch.equal(target, noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, times))
    torch.testing.assert_close(prediction_of(scheduler).noise(target, noisy, signal, spread), noise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_that_of_diffusers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    clean, noise, integers = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0, 500, 999])
    times = training_timesteps(scheduler, integers)
    signal, spread = noise_levels(scheduler, times, clean)
    noisy = signal * clean + spread * noise
    torch.testing.assert_close(noisy, scheduler.scale_noise(clean, times, noise))
    assert times[2] == 1000 and 0 < times[0] < 3.1  # 0 is nearest to the clean image, as in diffusion
    target = prediction_of(scheduler).target(clean, noise, signal, spread)
    torch.testing.assert_close(prediction_of(scheduler).noise(target, noisy, signal, spread), noise)
    for row, time in enumerate(times.tolist()):  # a number of the host instead of a tensor
        one = noise_levels(scheduler, time, clean)
        assert one[0] == signal[row].item() and one[1] == spread[row].item()


def test_an_exact_velocity_leads_from_the_noise_to_the_image(transformer):
    model, clean = transformer().eval(), torch.rand(1, 3, 8, 8) * 2 - 1
    model.forward = lambda noisy, times, condition: (noisy - clean) / (times / 1000).reshape(-1, 1, 1, 1)  # eps - x_0 of x_t and x_0
    images = generate(model, ["a cup"], [3], EULER, CaptureConfig(False, False, ())).images
    assert (images[0] / 127.5 - 1 - clean[0]).abs().max() < 0.01


def test_samplers_and_models_that_do_not_fit_are_refused(transformer, caption):
    for model, name in ((transformer(), "DDIMScheduler"), (caption(), "FlowMatchEulerDiscreteScheduler")):
        with pytest.raises(AfterglowError, match=f"{name} does not sample a model that was trained"):
            Sampler(name, 4, options={}).build(model.scheduler)
        build_sampler(model, steps=2).build(model.scheduler)  # the model's own fits
    for wrong, sentence in (({"use_dynamic_shifting": True}, "must be false"), ({"shift": -2.0}, "shift must be a number above 0")):
        with pytest.raises(AfterglowError, match=sentence):
            noise_schedule(FlowMatchEulerDiscreteScheduler(**wrong))
    with pytest.raises(AfterglowError, match="multiple of 2, the size of the transformer's patches"):
        transformer(resolution=9)
    with pytest.raises(AfterglowError, match="network must be one of UNet2DConditionModel, PixArtTransformer2DModel"):
        transformer(network="Flux")


def test_a_mitigation_of_the_timesteps_acts_on_a_flow_too(transformer, batch):
    model, mitigation = transformer(), TimestepSampling(0.0, 0.1)
    plain, near = (model.forward_batch(batch(6), mitigations).timesteps for mitigations in ((), (mitigation,)))
    torch.testing.assert_close(near, mitigation.change_timesteps(model, plain.round().long() - 1) + 1.0)
    assert (plain >= 1).all() and (near <= plain).all() and near.max() < plain.max()


def test_the_loss_of_two_images_falls(transformer, batch):
    unet = {**TRANSFORMER, "attention_head_dim": 16, "cross_attention_dim": 32}
    model, two, rows = transformer(unet=unet), batch(2), torch.arange(16) % 2
    captions = tuple(two.caption[row] for row in rows.tolist())
    optimizer, losses = torch.optim.AdamW(model.parameters(), 5e-3), []
    for number in range(60):  # new noise and timesteps each time
        loss = model.losses(Batch(two.image[rows], captions, ("global",) * 16, torch.arange(16) + 16 * number)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


@pytest.mark.parametrize("masked", [False, True])
def test_an_exported_transformer_generates_the_same_and_its_attention_is_written_out(masked, transformer, tmp_path):
    opened = open_model(export(transformer(mask_padding=masked).eval(), tmp_path / "out"))
    assert isinstance(opened, TextConditionalDDPM) and opened.init_args["network"] == "PixArtTransformer2DModel"
    captions, seeds = ["a hat", "a very red cup"], [3, 4]
    ours = generate(opened, captions, seeds, EULER)
    pipeline = opened.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    call = lambda: pipeline(captions, 4, 2.0, [torch.Generator().manual_seed(seed) for seed in seeds]).images  # noqa: E731
    mask = opened.condition(captions).attention_mask
    theirs, expected = written_out(pipeline.unet, call, slice(2, None), mask)
    assert (np.stack([np.asarray(image) for image in theirs]) == ours.images.permute(0, 2, 3, 1).numpy()).all()
    assert ours.layers == list(expected) == ["transformer_blocks.0.attn2", "transformer_blocks.1.attn2"] and mask.all() != masked
    for number, attention in enumerate(expected.values()):
        assert attention.shape == (2, 16, 8)
        torch.testing.assert_close(ours.token_attention[-1][:, number].float(), attention.mean(1), rtol=2e-3, atol=1e-4)
        for row, end in enumerate((ours.prompt_length - 1).tolist()):
            kept = ours.end_attention[3, ours.layers[number]][row, :, 0].float()
            torch.testing.assert_close(kept, attention[row, :, end], rtol=2e-3, atol=1e-4)
