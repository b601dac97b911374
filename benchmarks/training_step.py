"""Our training step (Lightning, seeded noise, weight average, logging) against other loops that train the same U-Net.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --batch-size 128 --side 32 --steps 1
    python benchmarks/training_step.py --against diffusers --batch-size 128 --side 32 --steps 1

plain: a PyTorch loop with the fused AdamW, torch's own generator, and the same batch again and again; a model with captions.
Bound: 1.05 times the seconds.
diffusers: the loop of its training script for unconditional models: accelerate, EMAModel, a scheduler of the learning rate, clipped
gradients, images that a DataLoader transforms one by one, and the loss shown at every step. Bound: 1.0 times the seconds.

Seconds in which the process waited for a core are left out.
"""

import argparse
from typing import Any, Protocol

import lightning as L
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from networks import captioned, plain
from PIL import Image
from timing import median_interval, undisturbed_seconds
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader
from torchvision import transforms
from tqdm import tqdm

from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.nonfinite import NonFinite
from afterglow.memory import keep_freed_memory
from afterglow.models.ddpm import DDPM
from afterglow.models.denoiser import Denoiser
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig


class Loop(Protocol):
    """Another way to train, one step at a time."""

    def step(self) -> None: ...


class Clock(L.Callback):
    """Seconds of neighboring blocks of steps, ours and those of another loop."""

    def __init__(self, block: int, other: Loop) -> None:
        self.block, self.other, self.ours, self.theirs = block, other, [], []
        self.mark = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step % self.block:
            return
        if trainer.global_step:
            self.ours.append(undisturbed_seconds() - self.mark)
            begin = undisturbed_seconds()
            for _ in range(self.block):
                self.other.step()
            self.theirs.append(undisturbed_seconds() - begin)
        self.mark = undisturbed_seconds()


class PlainLoop:
    """The same network, batch, loss and optimizer, written as one would without any of this."""

    def __init__(self, model: TextConditionalDDPM, data: PlantedDataModule) -> None:
        self.unet, self.scheduler, self.condition = model.unet, model.scheduler, model.condition
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=1e-3, fused=True)
        rows = data.planted.controls[: data.batch_size]
        self.images = torch.from_numpy(data.planted.pixels[rows]).float() / 127.5 - 1
        self.captions = [data.planted.captions[row] for row in rows]

    def step(self) -> None:
        noise = torch.randn_like(self.images)
        timesteps = torch.randint(len(self.scheduler), (len(noise),))
        noisy = self.scheduler.add_noise(self.images, noise, timesteps)
        output = self.unet(noisy, timesteps, self.condition(self.captions).encoder_hidden_states).sample
        loss = mse_loss(output, self.scheduler.get_velocity(self.images, noise, timesteps))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class DiffusersLoop:
    """What diffusers' script for unconditional models does in a step, from the same parts and with its default values."""

    def __init__(self, model: DDPM, data: PlantedDataModule) -> None:
        self.accelerator, self.scheduler = Accelerator(cpu=True), model.scheduler
        optimizer = torch.optim.AdamW(model.unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
        schedule = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10_000)
        side = data.planted.pixels.shape[-1]
        prepare = transforms.Compose(
            [transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
        )
        pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in data.planted.pixels]
        loader = DataLoader(
            pictures, data.batch_size, shuffle=True, drop_last=True, collate_fn=lambda rows: torch.stack(list(map(prepare, rows)))
        )
        self.unet, self.optimizer, self.loader, self.schedule = self.accelerator.prepare(model.unet, optimizer, loader, schedule)
        self.average = EMAModel(self.unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self.batches, self.bar = iter(()), tqdm(disable=True)

    def _next(self) -> Any:
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        return batch

    def step(self) -> None:
        images = self._next()
        noise = torch.randn_like(images)
        timesteps = torch.randint(len(self.scheduler), (len(images),))
        noisy = self.scheduler.add_noise(images, noise, timesteps)
        with self.accelerator.accumulate(self.unet):
            loss = mse_loss(self.unet(noisy, timesteps).sample.float(), noise.float())
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.unet.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        self.average.step(self.unet.parameters())
        self.bar.update(1)
        self.bar.set_postfix(loss=loss.detach().item(), lr=self.schedule.get_last_lr()[0])


def pair_of(against: str, side: int, data: PlantedDataModule) -> tuple[Denoiser, Loop]:
    """Our model and the other loop, which trains a network of its own."""
    if against == "diffusers":
        return plain(side), DiffusersLoop(plain(side), data)
    model, other = captioned(side), PlainLoop(captioned(side), data)
    model.condition(sorted(set(data.planted.captions) | {plant.caption for plant in data.planted.plants}))  # both remember their captions
    return model, other


def main() -> None:
    """Print the ratio of seconds a step, median and interval over interleaved blocks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=["plain", "diffusers"], default="plain", help="the other loop")
    parser.add_argument("--pairs", type=int, default=12, help="interleaved pairs of blocks")
    parser.add_argument("--steps", type=int, default=5, help="training steps in a block")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--side", type=int, default=16, help="side of the images in pixels")
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
    data = PlantedDataModule(set_size=400, planting=PlantingConfig(copies=(50,)), resolution=options.side, batch_size=options.batch_size)
    data.setup()
    model, other = pair_of(options.against, options.side, data)
    clock = Clock(options.steps, other)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=(options.pairs + 2) * options.steps, max_epochs=-1, callbacks=[NonFinite(), WarmupEMA(), clock],
        gradient_clip_val=1.0 if options.against == "diffusers" else None, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(DenoiserModule(model, OptimizerConfig(learning_rate=1e-3)), data)
    ratios = [ours / theirs for ours, theirs in zip(clock.ours[1:], clock.theirs[1:], strict=True)]  # the first block warms up
    median, low, high = median_interval(ratios)
    loop = {"plain": "a plain loop", "diffusers": "diffusers' loop"}[options.against]
    print(f"our training step takes {median:.3f}x the seconds of {loop} [{low:.3f}, {high:.3f}] ({len(ratios)} pairs)")


if __name__ == "__main__":
    main()
