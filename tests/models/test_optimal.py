"""The optimal denoiser against a slow computation, and what it makes of a run's planted set."""

import numpy as np
import pytest
import torch
import yaml

from afterglow.evaluation.ground_truth import match_to_plants
from afterglow.models.io import open_model
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.runs import load_planted_set
from afterglow.planting.targets import evaluation_targets
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

PLANTING = {
    "num_global": 2,
    "num_local": 2,
    "num_decoys": 0,
    "num_tints": 0,
    "num_decoy_images": 0,
    "num_backgrounds": 8,
    "num_heldout": 4,
    "copies": [30],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = {"dataset": "openmoji", "resolution": 16, "set_size": 60, "planting": PLANTING}
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {"init_args": data}}))
    return folder


def test_the_noise_is_the_posterior_mean_of_a_slow_loop():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    model = OptimalDenoiser(pixels, width=0.1)
    noisy = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = model(noisy, torch.tensor([300, 300]))
    abar = float(model.scheduler.alphas_cumprod[300])
    images = pixels.astype(float) / 127.5 - 1
    variance = abar * 0.01 + 1 - abar
    for row, x in enumerate(noisy.double().numpy()):
        weights = np.exp([-((x - np.sqrt(abar) * p) ** 2).sum() / (2 * variance) for p in images])
        clean = sum(
            w * (p + np.sqrt(abar) * 0.01 / variance * (x - np.sqrt(abar) * p))
            for w, p in zip(weights / weights.sum(), images, strict=True)
        )
        assert found[row].numpy() == pytest.approx((x - np.sqrt(abar) * clean) / np.sqrt(1 - abar), abs=1e-5)


def test_of_a_run_it_copies_every_plant_and_no_phantom(run):
    model = open_model(f"optimal:{run}")
    planted = load_planted_set(run)
    assert len(model.pixels) == 60 + 4 * 30
    count = 64
    images = generate(
        model, [""] * count, list(range(count)), Sampler(steps=50), CaptureConfig(guidance=False, tokens=False, end_steps=())
    ).images
    known = {image.tobytes() for image in model.pixels}
    assert np.mean([image.numpy().tobytes() in known for image in images]) == 1
    asked = evaluation_targets(planted, num_controls=0, num_heldout=0)
    which, near = match_to_plants(images, asked, planted.gallery())
    kinds = [asked[int(place)].kind for place in which[near < 1]]
    assert {"global", "local"} <= set(kinds) and kinds.count("phantom") <= 2
    assert len(set(which[near < 1].tolist())) >= 4


def test_it_is_no_network_to_be_exported(run):
    with pytest.raises(ValueError, match="no network that could be exported"):
        open_model(f"optimal:{run}").pipeline()
