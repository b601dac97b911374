import pytest
import torch
from diffusers import DDIMScheduler

from afterglow.collect import denoising_losses
from afterglow.models import DDPM, CaptionDDPM

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
PICTURES = torch.randint(256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CAPTIONS = ["a cat", "a dog", ""]


def caption_model(prediction):
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
    unet = {**SMALL, **blocks, "attention_head_dim": 2}
    return CaptionDDPM(unet, TEXT, text_length=8, resolution=8, noise={"prediction_type": prediction}).eval()


def plain_model():
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}
    return DDPM({**SMALL, **blocks}, resolution=8, noise={"num_train_timesteps": 100}).eval()


def oracle(model, monkeypatch, answer):
    """The network replaced by a function of (noisy, alpha bar)."""
    alphas = model.scheduler.alphas_cumprod
    monkeypatch.setattr(model, "forward", lambda noisy, times, _: answer(noisy, alphas[times][:, None, None, None]))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_network_that_knows_the_picture_loses_nothing(monkeypatch, prediction):
    model, clean = caption_model(prediction), PICTURES.float() / 127.5 - 1

    def answer(noisy, alpha):
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    oracle(model, monkeypatch, answer)
    assert denoising_losses(model, PICTURES, CAPTIONS).max() < 1e-6


def test_a_network_that_says_zero_loses_the_variance_of_the_noise(monkeypatch):
    model = caption_model("epsilon")
    oracle(model, monkeypatch, lambda noisy, _: torch.zeros_like(noisy))
    losses = denoising_losses(model, PICTURES, CAPTIONS, num_times=50)
    assert losses.mean().item() == pytest.approx(1, abs=0.03) and losses.std() > 0.02


def test_the_error_is_that_of_the_noise_whatever_the_network_predicts(monkeypatch):
    """A wrong picture by d costs abar / (1 - abar) d^2 in noise, for either target."""
    times, found = [62, 187, 312, 437, 562, 687, 812, 937], {}
    clean = PICTURES.float() / 127.5 - 1
    for prediction in ("epsilon", "v_prediction"):
        model = caption_model(prediction)

        def answer(noisy, alpha, prediction=prediction):
            noise = (noisy - alpha.sqrt() * (clean + 0.1)) / (1 - alpha).sqrt()
            return noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * (clean + 0.1)

        oracle(model, monkeypatch, answer)
        found[prediction] = denoising_losses(model, PICTURES, CAPTIONS, num_times=8)
    alpha = model.scheduler.alphas_cumprod[times]
    expected = (alpha / (1 - alpha) * 0.01).expand(3, -1)
    for losses in found.values():
        torch.testing.assert_close(losses, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("build", [lambda: caption_model("epsilon"), plain_model])
def test_against_one_picture_at_a_time(build):
    model = build()
    losses = denoising_losses(model, PICTURES, CAPTIONS, num_times=4)
    assert losses.shape == (3, 4) and losses.dtype == torch.float32
    repeated = denoising_losses(model, PICTURES, CAPTIONS, num_times=4)
    assert torch.equal(losses, repeated)  # probes of one run compare
    assert not torch.equal(losses, denoising_losses(model, PICTURES, CAPTIONS, num_times=4, seed=1))
    # a second way: with the network's error known for all noise of one row, the row is what it would be alone
    assert torch.allclose(losses[:1], denoising_losses(model, PICTURES[:1], CAPTIONS[:1], num_times=4), rtol=1e-4)


def test_noise_is_that_of_the_schedule(monkeypatch):
    """What the network is given: sqrt(abar) x0 + sqrt(1 - abar) eps with unit eps, new for every picture and time."""
    model, given = plain_model(), []
    monkeypatch.setattr(model, "forward", lambda noisy, times, _: given.append((noisy, times)) or noisy)
    denoising_losses(model, PICTURES, CAPTIONS, num_times=5)
    alphas, clean = DDIMScheduler.from_config(model.scheduler.config).alphas_cumprod, PICTURES.float() / 127.5 - 1
    assert [times.tolist() for _, times in given] == [[time] * 3 for time in (10, 30, 50, 70, 90)]
    noise = torch.stack([(noisy - alphas[times[0]].sqrt() * clean) / (1 - alphas[times[0]]).sqrt() for noisy, times in given])
    assert noise.mean().abs() < 0.1 and noise.std().item() == pytest.approx(1, abs=0.05)
    overlaps = noise.flatten(0, 1).flatten(1).corrcoef() - torch.eye(15)
    assert overlaps.abs().max() < 0.5


def test_the_caption_is_heard():
    model = caption_model("epsilon")
    assert not torch.allclose(denoising_losses(model, PICTURES, CAPTIONS), denoising_losses(model, PICTURES, ["x", "y", "z"]), rtol=1e-6)
