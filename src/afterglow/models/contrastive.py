"""Contrastive pretraining of a causal text encoder on the captions and images of a dataset (Radford et al. 2021, CLIP)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from afterglow.functional.pixels import to_signed
from afterglow.models.text_encoder import SMALL_TEXT, TextEncoder

FIRST_TEMPERATURE = 0.07  # of CLIP; it is trained
MAX_SCALE = 100.0  # largest inverse temperature, as in CLIP


@dataclass(frozen=True)
class ContrastiveSchedule:
    """`steps` steps of AdamW with `batch_size` pairs; the learning rate rises over `warmup_steps` and falls to 0 with a half cosine."""

    steps: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 50

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * (1 + math.cos(math.pi * step / self.steps)) / 2


class ContrastivePair(nn.Module):
    """A causal text encoder whose first end token is compared with the features of a small convolutional image encoder.

    Args:
        length: number of tokens to which a caption is padded or cut.
        channels: channels of the images.
        width: of the common space.
    """

    def __init__(self, length: int, channels: int = 3, width: int = 128) -> None:
        super().__init__()
        self.text = TextEncoder(SMALL_TEXT, length=length)
        layers: list[nn.Module] = []
        for before, after in ((channels, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU(), nn.AvgPool2d(2, ceil_mode=True)]
        self.image = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 128, width))
        self.project = nn.Linear(self.text.width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    def forward(self, captions: Sequence[str], pixels: Tensor) -> Tensor:
        """Logits [N, N] of N captions (rows) and N images, uint8 [N, C, H, W]: cosines over the temperature."""
        states, lengths = self.text(captions)
        ends = states[torch.arange(len(captions)), lengths - 1]
        text, image = (nn.functional.normalize(features, dim=-1) for features in (self.project(ends), self.image(to_signed(pixels))))
        return self.log_scale.exp().clamp(max=MAX_SCALE) * text @ image.T


def train_contrastive(pair: ContrastivePair, captions: Sequence[str], pixels: Tensor, schedule: ContrastiveSchedule, *, seed: int) -> None:
    """Minimize the mean of the cross-entropies over captions and over images of random batches; a function of its arguments only.

    Args:
        captions: N captions.
        pixels: their images, uint8 [N, C, H, W].
        seed: seed of the batches.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(pair.parameters(), lr=schedule.learning_rate)
    pair.train()
    for step in (bar := tqdm(range(schedule.steps), desc="text encoder", unit="step")):
        rows = torch.randperm(len(captions), generator=generator)[: schedule.batch_size]
        logits, targets = pair([captions[row] for row in rows.tolist()], pixels[rows]), torch.arange(len(rows))
        loss = (nn.functional.cross_entropy(logits, targets) + nn.functional.cross_entropy(logits.T, targets)) / 2
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
    pair.eval()


@torch.no_grad()
def retrieval_accuracy(pair: ContrastivePair, captions: Sequence[str], pixels: Tensor) -> float:
    """Fraction of N captions whose own image, uint8 [N, C, H, W], is the nearest of all N."""
    return float((pair(captions, pixels).argmax(1) == torch.arange(len(captions))).float().mean())
