from collections.abc import Callable

import pytest
import torch

from afterglow.evidence import Evidence, Neighbours

GRIDS = {  # a small U-Net shaped like Stable Diffusion's: layer => side of its grid
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2": 8,
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2": 8,
    "mid_block.attentions.0.transformer_blocks.0.attn2": 2,
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2": 4,
}


@pytest.fixture
def make_evidence() -> Callable[..., Evidence]:
    """make_evidence(count, steps=..., seed=..., any field=...): random evidence with every field, those given replaced."""

    def make(count: int = 4, *, steps: int = 5, side: int = 8, tokens: int = 6, seed: int = 0, **fields: object) -> Evidence:
        generator = torch.Generator().manual_seed(seed)
        delta = torch.randn(steps, count, 3, side, side, generator=generator)
        rms = delta.square().flatten(2).mean(2).sqrt()
        distances = torch.rand(count, 51, generator=generator).add(0.05).sort(dim=1).values
        neighbours = Neighbours(torch.arange(51).repeat(count, 1), distances)
        mask = torch.rand(count, 1, side, side, generator=generator) < 0.4
        mask[:, :, 0, 0], mask[:, :, -1, -1] = True, False  # neither empty nor full
        ends = {
            (step, layer): torch.rand(count, grid * grid, 3, generator=generator).half()
            for step in (0, steps - 1)
            for layer, grid in GRIDS.items()
        }
        filled = {
            "images": torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8),
            "references": torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8),
            "caption": tuple(f"picture {row}" for row in range(count)),
            "kind": ("local",) * count,
            "shape": ("blob",) * count,
            "plant_id": torch.arange(count),
            "seed": torch.zeros(count, dtype=torch.long),
            "timesteps": torch.arange(steps).flip(0),
            "prompt_length": torch.randint(2, tokens + 1, (count,), generator=generator),
            "planted_mask": mask,
            "region": mask,
            "guidance": (delta / rms[..., None, None, None]).half(),
            "guidance_rms": rms * torch.rand(steps, count, generator=generator).add(0.5),
            "token_attention": torch.randn(steps, count, len(GRIDS), tokens, generator=generator).softmax(-1).half(),
            "end_attention": ends,
            "neighbours": neighbours,
            "neighbours_whole": neighbours,
            "provenance": {"layers": list(GRIDS)},
        }
        return Evidence(**(filled | fields))

    return make
