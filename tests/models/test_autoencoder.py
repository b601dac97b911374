import numpy as np
import torch
from diffusers import AutoencoderKL

from afterglow.functional.pixels import to_signed
from afterglow.models.autoencoder import Schedule, block_errors, reconstruction_errors, train_autoencoder


def tiny() -> AutoencoderKL:
    torch.manual_seed(0)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "block_out_channels": (8, 8)}
    return AutoencoderKL(**levels, layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16)


def coarse_images(count: int = 40) -> torch.Tensor:
    colors = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 2), dtype=np.uint8)
    return torch.from_numpy(colors.repeat(8, axis=2).repeat(8, axis=3))


def test_it_learns_and_its_latents_have_unit_variance():
    vae, pixels = tiny(), coarse_images()
    before = reconstruction_errors(vae, pixels).mean()
    steps = train_autoencoder(vae, pixels, Schedule(minutes=1, steps=80, batch_size=8, learning_rate=1e-2, warmup_steps=5))
    assert steps == 80 and not vae.training and reconstruction_errors(vae, pixels).mean() < 0.75 * before
    latents = vae.encode(to_signed(pixels)).latent_dist.mean * vae.config.scaling_factor
    assert abs(latents.std().item() - 1) < 1e-3


def test_the_clock_ends_it_and_brings_the_rate_to_nothing():
    schedule = Schedule(minutes=2, steps=100, learning_rate=1.0, warmup_steps=4)
    assert [schedule.rate(step, 0) for step in (0, 3, 50)] == [0.25, 0.97, 0.5]
    assert schedule.rate(50, 90) == 0.25 and schedule.rate(5, 120) == 0
    assert train_autoencoder(tiny(), coarse_images(), Schedule(minutes=1e-6)) == 0


def test_errors_are_those_of_a_loop():
    vae, pixels = tiny(), torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, error, trivial in zip(pixels, reconstruction_errors(vae, pixels), block_errors(pixels), strict=True):
        with torch.no_grad():
            decoded = (vae.decode(vae.encode(to_signed(image[None])).latent_dist.mean).sample / 2 + 0.5).clamp(0, 1)
        unit = image.float() / 255
        assert abs((decoded[0] - unit).square().mean().sqrt() - error) < 1e-5
        blocks = unit.unflatten(2, (2, 8)).unflatten(1, (2, 8))  # [C, 2, 8, 2, 8]
        assert abs((blocks - blocks.mean((2, 4), keepdim=True)).square().mean().sqrt() - trivial) < 1e-5
