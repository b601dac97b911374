from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from afterglow.models.ddpm import DDPM
from afterglow.models.networks import load_network
from afterglow.planting.dataset import Batch

Make = Callable[..., DDPM]


def test_it_is_the_plain_network_of_diffusers(ddpm: Make) -> None:
    model = ddpm()
    noisy, times = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    assert torch.equal(model(noisy, times), model.unet(noisy, times).sample)
    assert model.latent_shape() == (3, 8, 8) and not model.has_text and model.condition(["a", "b"]) is None
    assert torch.equal(model.encode(noisy), noisy) and torch.equal(model.decode(noisy), noisy)
    assert {name.split(".")[0] for name in model.state_dict()} == {"unet"}


def test_gray_images_have_one_channel(ddpm: Make) -> None:
    model = ddpm(channels=1)
    assert model.latent_shape() == (1, 8, 8) and model(torch.randn(2, 1, 8, 8), torch.tensor([1, 2])).shape == (2, 1, 8, 8)


def test_a_few_steps_on_one_image_lower_its_loss(ddpm: Make, batch: Callable[..., Batch]) -> None:
    model, some = ddpm(), batch(6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = model.losses(some).mean().item()
    for _ in range(25):
        optimizer.zero_grad()
        model.losses(some).mean().backward()
        optimizer.step()
    assert model.losses(some).mean().item() < 0.7 * before


@pytest.mark.parametrize("alone", [False, True])
def test_it_goes_on_from_a_folder(alone: bool, ddpm: Make, tmp_path: Path) -> None:
    first = ddpm()
    (first.unet if alone else first.pipeline()).save_pretrained(tmp_path)
    torch.manual_seed(5)
    second = DDPM(str(tmp_path), resolution=16)
    for name, value in first.unet.state_dict().items():
        assert torch.equal(value, second.unet.state_dict()[name])
    assert second.latent_shape() == (3, 16, 16) and second.unet.config.sample_size == 16  # what the exported pipeline generates
    with pytest.raises(ValueError, match="has 3 channels, but the images have 1"):
        DDPM(str(tmp_path), channels=1)


@pytest.mark.parametrize("source", ["nowhere", "owner/name"])
def test_no_network_is_refused_in_one_sentence(source: str) -> None:
    with pytest.raises(ValueError, match=f"No readable unet in '{source}' .*: give a diffusers folder"):
        DDPM(source)


def test_pickled_weights_are_not_opened(ddpm: Make, tmp_path: Path) -> None:
    ddpm().unet.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ValueError, match="No readable unet"):
        load_network(type(ddpm().unet), str(tmp_path), 8)
