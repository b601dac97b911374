import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from afterglow.datasets.images import CaptionedImages
from afterglow.models.latent_cache import cache_latents, weights_key
from afterglow.models.stable_diffusion import StableDiffusion
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig

PLANTING = PlantingConfig(
    num_global=2, num_local=2, num_decoys=1, num_tints=1, num_backgrounds=4, num_decoy_images=4, num_heldout=2, copies=(3,)
)


def planted_with(seed: int) -> PlantedSet:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 64, 64), dtype=np.uint8)
    names = tuple(f"image {row}" for row in range(60))
    return plant_images(CaptionedImages(pixels, names, names, np.full(60, -1), True), PLANTING, set_size=8, seed=seed)


@pytest.fixture(scope="module")
def planted() -> PlantedSet:
    return planted_with(seed=0)


@pytest.fixture
def model(sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StableDiffusion:
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    return StableDiffusion(str(sd_folder), resolution=64).eval()


def latents_of(model, dataset):
    return cache_latents(model.frozen_vae.module, model.posterior_moments, dataset, 8)


def test_remembered_latents_and_texts_give_the_same_losses_and_leave_the_frozen_parts_alone(model, planted, monkeypatch):
    samples = PlantedDataset(planted, 0)
    total = 40  # more than an epoch
    direct = [model.losses(samples.batch(range(start, start + 8))) for start in range(0, total, 8)]
    model.prepare_training(samples, total, 0, 1, lambda: None)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the frozen parts have left the loop")

    monkeypatch.setattr(model.frozen_vae.module, "encode", forbidden)
    monkeypatch.setattr(model.text.module[0], "forward", forbidden)
    for number, expected in enumerate(direct):
        batch = samples.batch(range(8 * number, 8 * number + 8))
        assert batch.image.numel() == 0 and batch.moments is not None and batch.moments.shape == (8, 8, 8, 8)
        torch.testing.assert_close(model.losses(batch), expected, rtol=0, atol=1e-4)


def test_each_epoch_still_draws(model, planted):
    samples = PlantedDataset(planted, 0)
    model.prepare_training(samples, 60, 0, 1, lambda: None)
    shown = samples.keys(range(60)).tolist()
    again = shown.index(shown[0], 1)  # the next epoch's appearance of the same image
    batch = samples.batch([0, again])
    assert torch.equal(batch.moments[0], batch.moments[1])
    first, second = model.target_x0(batch)
    assert not torch.equal(first, second)


def test_what_is_remembered_is_never_of_other_weights_or_images(model, planted, sd_folder, tmp_path):
    store = latents_of(model, PlantedDataset(planted, 0))
    shutil.copytree(sd_folder, tmp_path / "other")
    vae = AutoencoderKL.from_pretrained(sd_folder, subfolder="vae")
    assert weights_key(vae) == weights_key(model.frozen_vae.module)
    with torch.no_grad():
        vae.decoder.conv_out.bias[0] += 1e-3
    assert weights_key(vae) != weights_key(model.frozen_vae.module)
    vae.save_pretrained(tmp_path / "other" / "vae")
    other = latents_of(StableDiffusion(str(tmp_path / "other"), resolution=64), PlantedDataset(planted, 0))
    assert other.folder != store.folder
    before = len(store._places)
    assert len(latents_of(model, PlantedDataset(planted_with(seed=1), 1))._places) > before


def test_a_round_trip_is_the_decoded_mean_and_made_once(model, planted, monkeypatch):
    decoded = planted.reconstructed(model.reconstruct)
    assert decoded.pixels.shape == planted.pixels.shape and decoded.originals is planted.pixels
    one = model.decode(model.encode(torch.from_numpy(planted.pixels[:1]).float() / 127.5 - 1))
    expected = ((one / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    assert np.abs(decoded.pixels[:1].astype(int) - expected).max() <= 1
    monkeypatch.setattr(model, "decode", None)
    assert (planted.reconstructed(model.reconstruct).pixels == decoded.pixels).all()
    mask = planted.plants[0].mask
    apart = (decoded.pixels[0] / 255.0 - planted.pixels[0] / 255.0)[:, mask[0]]
    assert abs(decoded.reconstruction_error(0, mask) - np.sqrt((apart**2).mean())) < 1e-6 and np.isnan(
        planted.reconstruction_error(0, mask)
    )
