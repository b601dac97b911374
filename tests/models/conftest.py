"""Networks of a few thousand weights, and batches without a data set."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from afterglow.models.ddpm import DDPM
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.dataset import Batch

PLAIN = {
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}
CAPTIONED = {
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": [1, 2],
}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_ddpm(**options: Any) -> DDPM:
    torch.manual_seed(0)
    return DDPM(**({"unet": PLAIN, "resolution": 8} | options))


def make_caption(**options: Any) -> TextConditionalDDPM:
    torch.manual_seed(0)
    return TextConditionalDDPM(**({"unet": CAPTIONED, "text": TEXT, "resolution": 8, "text_length": 8} | options))


def make_batch(size: int = 6, first: int = 0) -> Batch:
    """Samples number first, first + 1, ...; sample i is the same in every batch."""
    rows = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(row)) * 2 - 1 for row in range(first, first + size)]
    captions = tuple(f"an image of {row}" for row in range(first, first + size))
    return Batch(torch.stack(rows), captions, ("control",) * size, torch.arange(first, first + size))


@pytest.fixture(scope="session")
def ddpm() -> Callable[..., DDPM]:
    return make_ddpm


@pytest.fixture(scope="session")
def caption() -> Callable[..., TextConditionalDDPM]:
    return make_caption


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    return make_batch
