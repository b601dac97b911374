import copy
import math
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from fast_training import ENDS, FAST
from lightning.pytorch.callbacks import ModelCheckpoint

from afterglow.cli import main
from afterglow.mitigations.training import GaussianNoise, sample_dropping
from afterglow.mitigations.training.sample_dropping import MAX_HISTORY, MIN_HISTORY, SampleDropping, training_guidance_norm
from afterglow.models import lightning_module
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.dataset import Batch
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling.attention import record_attention


@pytest.fixture
def loud(heard):
    """A model whose captions are heard, to be taught."""
    return copy.deepcopy(heard)


def batch_of(first=0, size=8, kind="control"):
    images = torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(first))
    captions = tuple("" if row == 2 else f"an image of {row}" for row in range(first, first + size))
    return Batch(images, captions, (kind,) * size, torch.arange(first, first + size))


def train_step(model, dropping, batch):
    """The output of a training step, and which samples are kept."""
    step = model.forward_batch(batch, (dropping,))
    return step, dropping.loss_mask(model, step)


def with_history(level, values):
    dropping = SampleDropping("guidance_norm", percentile=90)
    dropping.history = torch.stack([torch.full((len(values),), float(level)), values], dim=1).double()
    return dropping


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_magnitude_is_that_of_each_sample_alone_at_its_own_timestep(small_captioned, prediction):
    model = small_captioned(noise_scheduler={"prediction_type": prediction})
    for name, parameter in model.named_parameters():
        if "attn2" in name:
            parameter.data *= 4
    step, _ = train_step(model, SampleDropping("guidance_norm"), batch_of())
    found = training_guidance_norm(model, step)
    with torch.no_grad():
        for row, (caption, timestep) in enumerate(zip(step.captions, step.timesteps, strict=True)):
            noisy = step.noisy[row : row + 1]
            eps = [model.to_noise(model(noisy, timestep[None], model.condition([said])), noisy, int(timestep)) for said in (caption, "")]
            assert found[row].item() == pytest.approx((eps[0] - eps[1]).norm().item(), rel=1e-3, abs=1e-4)
    assert found[2] < 1e-3 < found[[0, 1, 3]].min() and not found.requires_grad


@torch.no_grad()
def test_the_entropy_is_that_of_the_attention_averaged_over_pixels_heads_and_layers(loud):
    dropping = SampleDropping("entropy", threshold=math.inf)
    step, kept = train_step(loud, dropping, batch_of())
    assert kept.all()
    with record_attention(loud.unet) as maps:
        loud(step.noisy, step.timesteps, step.condition)
    ema = torch.stack([attention.mean(1) for attention in maps.values()]).mean(0).double()
    expected = [-sum(share * math.log(share) for share in row if share > 0) for row in ema.tolist()]
    limit = sorted(expected)[4]
    dropping.threshold = limit + 1e-6
    kept = dropping.loss_mask(loud, step)
    assert kept.tolist() == [value <= limit + 1e-6 or caption == "" for value, caption in zip(expected, step.captions, strict=True)]
    assert 0 < (~kept).sum() < 8


def test_watching_and_keeping_change_no_bit_of_the_losses(small_captioned):
    model, some = small_captioned(), batch_of()
    expected = model.losses(some)
    for by in ("guidance_norm", "entropy"):
        step, kept = train_step(model, SampleDropping(by), some)
        assert torch.equal(step.losses, expected) and kept.all()  # nothing is remembered yet


def test_over_a_given_threshold_all_but_the_unconditional_are_dropped(loud):
    for by in ("guidance_norm", "entropy"):
        _, kept = train_step(loud, SampleDropping(by, threshold=0.0), batch_of())
        assert kept.tolist() == [row == 2 for row in range(8)]
        assert train_step(loud, SampleDropping(by, threshold=1e6), batch_of())[1].all()


def test_the_limit_is_the_percentile_of_the_controls_at_the_same_noise_level_once_there_are_enough():
    values = torch.linspace(0, 1, MIN_HISTORY)
    limits = with_history(3, values).thresholds()
    assert limits[3].item() == pytest.approx(0.9) and torch.isinf(limits[[0, 1, 2, 4, 9]]).all()
    assert torch.isinf(with_history(3, values[1:]).thresholds()).all()


def test_a_sample_is_compared_with_controls_of_its_own_level(loud):
    dropping = with_history(0, torch.zeros(MIN_HISTORY))
    step, kept = train_step(loud, dropping, batch_of(size=64))
    assert torch.equal(kept, (step.timesteps >= 100) | torch.tensor([caption == "" for caption in step.captions]))
    assert 0 < (~kept).sum() < 64


def test_what_is_remembered_does_not_depend_on_how_a_batch_was_split(loud):
    whole, parts, plants = (SampleDropping("guidance_norm") for _ in range(3))
    train_step(loud, whole, batch_of())
    both = batch_of()
    for chosen in (slice(1, None, 2), slice(0, None, 2)):  # of two processes, the second was gathered first
        train_step(loud, parts, Batch(*(getattr(both, name)[chosen] for name in ("image", "caption", "kind", "index"))))
    train_step(loud, plants, batch_of(kind="global"))
    for dropping in (whole, parts, plants):
        assert len(dropping.history) == 0  # within an optimizer step nothing changes
        dropping.on_optimizer_step(lambda rows: rows)
    assert len(plants.history) == 0 and len(whole.history) == 7  # the sample without a caption is none of them
    torch.testing.assert_close(parts.history, whole.history, rtol=1e-4, atol=1e-6)


def test_the_oldest_values_are_forgotten(loud):
    dropping = with_history(5, torch.arange(float(MAX_HISTORY)))
    train_step(loud, dropping, batch_of())
    dropping.on_optimizer_step(lambda rows: rows)
    dropping.on_optimizer_step(lambda rows: rows)
    assert len(dropping.history) == MAX_HISTORY and dropping.history[0, 1] == 7


def test_invalid_percentile_is_refused():
    for percentile in (0.0, 101.0):
        with pytest.raises(ValueError, match="percentile must lie in"):
            SampleDropping("entropy", percentile=percentile)


def test_load_state_dict_ignores_history_of_another_measure(loud):
    dropping = with_history(3, torch.ones(4))
    same, other = SampleDropping("guidance_norm"), SampleDropping("entropy")
    for one in (same, other):
        one.load_state_dict(dropping.state_dict())
    assert torch.equal(same.history, dropping.history) and len(other.history) == 0


def test_resumed_training_drops_the_same_samples(small_captioned, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_dropping, "MIN_HISTORY", 2)
    planting = PlantingConfig(num_global=2, num_local=0, num_decoys=0, num_tints=0, copies=(4,), num_heldout=8)
    steps, true_mean = [], lightning_module.masked_mean
    watched = lambda losses, kept, gather: steps.append((losses.tolist(), kept.tolist())) or true_mean(losses, kept, gather)  # noqa: E731
    monkeypatch.setattr(lightning_module, "masked_mean", watched)

    def fit(checkpoint=None):
        often = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
        trainer = L.Trainer(
            max_steps=12, max_epochs=-1, accelerator="cpu", callbacks=[often], use_distributed_sampler=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        mitigations = [GaussianNoise(), SampleDropping("guidance_norm", percentile=50)]
        module = lightning_module.DenoiserModule(small_captioned(cond_drop_prob=0.1), mitigations=mitigations)
        trainer.fit(module, PlantedDataModule(set_size=24, batch_size=8, planting=planting), ckpt_path=checkpoint, weights_only=True)

    fit()
    whole = list(steps)
    assert len(whole) == 12 and 0 < sum(not keep for _, kept in whole for keep in kept) < 48
    saved = dict(torch.load(tmp_path / "step=5.ckpt", weights_only=True)["mitigations"])
    assert len(saved["SampleDropping"]["history"]) > 4
    steps.clear()
    fit(str(tmp_path / "step=5.ckpt"))
    assert steps == whole[5:]


def test_run_of_command_drops_samples_with_perturbed_captions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("afterglow.cli.lightning_cli.write_report", lambda folder, **options: folder / "report.html")
    kept, true_mean = [], lightning_module.masked_mean
    watched = lambda losses, mask, gather: kept.extend(mask.tolist()) or true_mean(losses, mask, gather)  # noqa: E731
    monkeypatch.setattr(lightning_module, "masked_mean", watched)
    short = [*ENDS, "--trainer.max_steps", "2"]
    mitigations = ["--mitigations+=RandomTokens", "--mitigations+=SampleDropping"]
    main(["train", *FAST, "--name", "x", *short, *mitigations, "--mitigations.measure=entropy", "--mitigations.threshold=0"])
    assert len(kept) == 16 and sum(kept) < 6  # those whose caption was dropped for guidance
    weights = torch.load("runs/x/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    written = yaml.safe_load(Path("runs/x/config.yaml").read_text())["mitigations"]
    assert [one["class_path"].rpartition(".")[2] for one in written] == ["RandomTokens", "SampleDropping"]


def test_model_without_captions_is_refused_by_the_names_of_the_mitigations(small_plain):
    with pytest.raises(ValueError, match="mitigations: GaussianNoise, SampleDropping act on captions, and DDPM has no captions"):
        lightning_module.DenoiserModule(small_plain(), mitigations=[GaussianNoise(), SampleDropping("entropy")])
