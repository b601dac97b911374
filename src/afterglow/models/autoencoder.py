"""Training a small autoencoder, so that a structure without public weights has latents that decode."""

import time
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from tqdm import tqdm

from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import signed_to_unit, to_signed, to_unit

KL_WEIGHT = 1e-6  # of Rombach et al. 2022, both terms summed over an image
NUM_SCALED = 512  # images from which the latents' scale is taken


@dataclass(frozen=True)
class Schedule:
    """At most `steps` steps of `batch_size` images and at most `minutes`; the rate falls to 0 with whichever is nearer its end."""

    minutes: float = 10.0
    steps: int = 4000
    batch_size: int = 4
    learning_rate: float = 2e-3
    warmup_steps: int = 50

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of Adam."""
        done = max(step / self.steps, seconds / (60 * self.minutes))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * max(0.0, 1 - done)


def train_autoencoder(vae: AutoencoderKL, pixels: Tensor, schedule: Schedule, *, seed: int = 0) -> int:
    """Minimize (x - decode(encode(x)))^2 with a small KL term on pixels, uint8 [N, 3, H, W]; returns the number of steps.

    The autoencoder's scaling factor is set so that latents have unit variance.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(vae.parameters(), lr=schedule.learning_rate)
    vae.train()
    begin, step = time.perf_counter(), 0
    with tqdm(total=schedule.steps, desc="autoencoder", unit="step") as bar:
        while step < schedule.steps and (rate := schedule.rate(step, time.perf_counter() - begin)) > 0:
            rows = torch.randint(len(pixels), (schedule.batch_size,), generator=generator)
            images = to_signed(pixels[rows])
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample
            error = (decoded - images).square().flatten(1).sum(1)
            loss = (error + KL_WEIGHT * posterior.kl()).mean() / images[0].numel()
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
            bar.update()
    vae.eval()
    with torch.no_grad():
        latents = torch.cat([vae.encode(to_signed(part)).latent_dist.mean for part in pixels[:NUM_SCALED].split(32)])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return step


@torch.no_grad()
def reconstruction_errors(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Root mean square difference of images and their decoded latents, in [0, 1] pixels, [N]."""
    decoded = [vae.decode(vae.encode(to_signed(part)).latent_dist.mean).sample for part in pixels.split(32)]
    return masked_rms(to_unit(pixels), signed_to_unit(torch.cat(decoded)), torch.ones(1, *pixels.shape[-2:], dtype=torch.bool))


def block_errors(pixels: Tensor) -> Tensor:
    """The same for a trivial code: the mean color of each block of 8 x 8 pixels, [N]."""
    unit = to_unit(pixels)
    means = interpolate(avg_pool2d(unit, 8), scale_factor=8)
    return masked_rms(unit, means, torch.ones(1, *pixels.shape[-2:], dtype=torch.bool))
