"""The rows of losses and advantages, on a model whose errors are known."""

import pytest
import torch
from diffusers import DDIMScheduler

from afterglow.analysis.summary import ALL_SEEDS
from afterglow.datasets.openmoji import load_openmoji
from afterglow.evaluation.denoising_loss import NUM_TIMES, denoising_errors, denoising_loss_rows
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig


@pytest.fixture(scope="module")
def planted():
    options = {
        "num_global": 2,
        "num_local": 2,
        "num_decoys": 1,
        "num_tints": 1,
        "copies": (4,),
        "num_backgrounds": 20,
        "num_decoy_images": 20,
    }
    return plant_images(load_openmoji(16), PlantingConfig(**options, num_heldout=12), set_size=40)


def test_the_optimal_denoiser_of_some_images_knows_these_and_no_others(planted):
    known = [p for p in planted.of_kind("global")]
    model = OptimalDenoiser(planted.pixels[[p.members[0] for p in known]])
    rows = denoising_loss_rows(model, planted, batch_size=7)
    inside = rows[rows["measure"] == "denoising_log_ratio.inside"].set_index("plant_id")["value"]
    assert (inside[[p.plant_id for p in known]] > 3).all()  # the error is all but nothing: e^3 times less
    phantoms = [p.plant_id for p in planted.of_kind("phantom")]
    assert inside[phantoms].abs().max() < 1 and set(inside.index) >= set(phantoms)
    assert (rows["seed"] == ALL_SEEDS).all() and rows["value"].notna().all()


def test_every_time_has_a_row_and_the_mean_stands_beside_them(planted):
    rows = denoising_loss_rows(OptimalDenoiser(planted.pixels[:3]), planted, batch_size=64)
    for name, kinds in (
        ("denoising_loss", {"heldout", "control"}),
        ("denoising_log_ratio.inside", {"global", "local", "phantom", "control"}),
    ):
        some = rows[rows["measure"].str.startswith(name)]
        assert set(some["kind"]) == kinds
        each = some[some["measure"] != name].groupby("plant_id")["value"]
        assert (each.count() == NUM_TIMES).all()
        means = some[some["measure"] == name].set_index("plant_id")["value"]
        assert torch.allclose(torch.tensor(each.mean()[means.index].to_numpy()), torch.tensor(means.to_numpy()), rtol=1e-4, atol=1e-4)
    outside = rows[rows["measure"] == "denoising_log_ratio.outside"]
    assert set(outside["kind"]) == {"local", "phantom"} and len(outside) == 4  # only regions have an outside


def test_a_set_without_held_out_images_has_losses_of_its_own_images_alone():
    nothing = dict.fromkeys(("num_global", "num_local", "num_decoys", "num_tints", "num_backgrounds", "num_decoy_images", "num_heldout"), 0)
    bare = plant_images(load_openmoji(16), PlantingConfig(**nothing), set_size=12)
    rows = denoising_loss_rows(OptimalDenoiser(bare.pixels), bare, batch_size=64)
    assert set(rows["measure"].str.partition("=")[0]) == {"denoising_loss", "denoising_loss.t"} and set(rows["kind"]) == {"control"}


def denoising_losses(model, images, captions, num_times=8, seed=0):
    return denoising_errors(model, images, captions, num_times=num_times, seed=seed).mean((2, 3))


IMAGES = torch.randint(256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CAPTIONS = ["a cat", "a dog", ""]


def oracle(model, monkeypatch, answer):
    """The network replaced by a function of (noisy, alpha bar)."""
    alphas = model.scheduler.alphas_cumprod
    monkeypatch.setattr(model, "forward", lambda noisy, times, _: answer(noisy, alphas[times][:, None, None, None]))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_network_that_knows_the_image_loses_nothing(small_captioned, monkeypatch, prediction):
    model, clean = small_captioned(noise_scheduler={"prediction_type": prediction}), IMAGES.float() / 127.5 - 1

    def answer(noisy, alpha):
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    oracle(model, monkeypatch, answer)
    assert denoising_losses(model, IMAGES, CAPTIONS).max() < 1e-6


def test_a_network_that_says_zero_loses_the_variance_of_the_noise(small_captioned, monkeypatch):
    model = small_captioned()
    oracle(model, monkeypatch, lambda noisy, _: torch.zeros_like(noisy))
    losses = denoising_losses(model, IMAGES, CAPTIONS, num_times=50)
    assert losses.mean().item() == pytest.approx(1, abs=0.03) and losses.std() > 0.02


def test_the_error_is_that_of_the_noise_whatever_the_network_predicts(small_captioned, monkeypatch):
    """A wrong image by d costs abar / (1 - abar) d^2 in noise, for either target."""
    times, found = [62, 187, 312, 437, 562, 687, 812, 937], {}
    clean = IMAGES.float() / 127.5 - 1
    for prediction in ("epsilon", "v_prediction"):
        model = small_captioned(noise_scheduler={"prediction_type": prediction})

        def answer(noisy, alpha, prediction=prediction):
            noise = (noisy - alpha.sqrt() * (clean + 0.1)) / (1 - alpha).sqrt()
            return noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * (clean + 0.1)

        oracle(model, monkeypatch, answer)
        found[prediction] = denoising_losses(model, IMAGES, CAPTIONS, num_times=8)
    alpha = model.scheduler.alphas_cumprod[times]
    expected = (alpha / (1 - alpha) * 0.01).expand(3, -1)
    for losses in found.values():
        torch.testing.assert_close(losses, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("text", [True, False])
def test_against_one_image_at_a_time(text, small_captioned, small_plain):
    model = small_captioned() if text else small_plain(noise_scheduler={"num_train_timesteps": 100})
    losses = denoising_losses(model, IMAGES, CAPTIONS, num_times=4)
    assert losses.shape == (3, 4) and losses.dtype == torch.float32
    repeated = denoising_losses(model, IMAGES, CAPTIONS, num_times=4)
    assert torch.equal(losses, repeated)  # probes of one run compare
    assert not torch.equal(losses, denoising_losses(model, IMAGES, CAPTIONS, num_times=4, seed=1))
    # a second way: with the network's error known for all noise of one row, the row is what it would be alone
    assert torch.allclose(losses[:1], denoising_losses(model, IMAGES[:1], CAPTIONS[:1], num_times=4), rtol=1e-4)


def test_noise_is_that_of_the_schedule(small_plain, monkeypatch):
    """What the network is given: sqrt(abar) x0 + sqrt(1 - abar) eps with unit eps, new for every image and time."""
    model, given = small_plain(noise_scheduler={"num_train_timesteps": 100}), []
    monkeypatch.setattr(model, "forward", lambda noisy, times, _: given.append((noisy, times)) or noisy)
    denoising_losses(model, IMAGES, CAPTIONS, num_times=5)
    alphas, clean = DDIMScheduler.from_config(model.scheduler.config).alphas_cumprod, IMAGES.float() / 127.5 - 1
    assert [times.tolist() for _, times in given] == [[time] * 3 for time in (10, 30, 50, 70, 90)]
    noise = torch.stack([(noisy - alphas[times[0]].sqrt() * clean) / (1 - alphas[times[0]]).sqrt() for noisy, times in given])
    assert noise.mean().abs() < 0.1 and noise.std().item() == pytest.approx(1, abs=0.05)
    overlaps = noise.flatten(0, 1).flatten(1).corrcoef() - torch.eye(15)
    assert overlaps.abs().max() < 0.5


def test_the_caption_changes_the_prediction(small_captioned):
    model = small_captioned()
    assert not torch.allclose(denoising_losses(model, IMAGES, CAPTIONS), denoising_losses(model, IMAGES, ["x", "y", "z"]), rtol=1e-6)
