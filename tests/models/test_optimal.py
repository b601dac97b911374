"""The optimal denoiser against a slow reckoning, and what it makes of a run's planted set."""

import numpy as np
import pytest
import torch
import yaml

from afterglow.collect import Capture, Sampler, assign, generate
from afterglow.data.module import planted_of_run
from afterglow.data.subjects import subjects
from afterglow.models import OptimalDenoiser, open_model

PLANTING = {
    "num_global": 2,
    "num_local": 2,
    "num_decoys": 0,
    "num_tints": 0,
    "num_moving": 0,
    "num_fills": 8,
    "num_heldout": 4,
    "copies": [30],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = {"source": "openmoji", "resolution": 16, "set_size": 60, "planting": PLANTING}
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {"init_args": data}}))
    return folder


def test_the_noise_is_the_posterior_mean_of_a_slow_loop():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    model = OptimalDenoiser(pixels, width=0.1)
    noisy = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = model(noisy, torch.tensor([300, 300]))
    abar = float(model.scheduler.alphas_cumprod[300])
    pictures = pixels.astype(float) / 127.5 - 1
    variance = abar * 0.01 + 1 - abar
    for row, x in enumerate(noisy.double().numpy()):
        weights = np.exp([-((x - np.sqrt(abar) * p) ** 2).sum() / (2 * variance) for p in pictures])
        clean = sum(
            w * (p + np.sqrt(abar) * 0.01 / variance * (x - np.sqrt(abar) * p))
            for w, p in zip(weights / weights.sum(), pictures, strict=True)
        )
        assert found[row].numpy() == pytest.approx((x - np.sqrt(abar) * clean) / np.sqrt(1 - abar), abs=1e-5)


def test_of_a_run_it_copies_every_plant_and_no_phantom(run):
    model = open_model(f"optimal:{run}")
    planted = planted_of_run(run)
    assert len(model.pixels) == 60 + 4 * 30
    count = 64
    images = generate(
        model, [""] * count, list(range(count)), Sampler(steps=50), Capture(guidance=False, tokens=False, end_steps=())
    ).images
    known = {picture.tobytes() for picture in model.pixels}
    assert np.mean([picture.numpy().tobytes() in known for picture in images]) == 1
    asked = subjects(planted, num_controls=0, num_heldout=0)
    which, near = assign(images, asked, planted.gallery())
    kinds = [asked[int(place)].kind for place in which[near < 1]]
    assert {"global", "local"} <= set(kinds) and kinds.count("phantom") <= 2
    assert len(set(which[near < 1].tolist())) >= 4


def test_it_is_no_network_to_be_exported(run):
    with pytest.raises(ValueError, match="no network that could be exported"):
        open_model(f"optimal:{run}").pipeline()
