"""Evidence of two local and two global plants, two phantoms of them and two controls, two seeds each; the maps are the truth."""

import pytest
import torch

from afterglow.evidence import Evidence, Neighbours

KINDS = ("global", "global", "local", "local", "phantom", "phantom", "control", "control")
LAYERS = ("down_blocks.0.attentions.0.transformer_blocks.0.attn2", "up_blocks.0.attentions.0.transformer_blocks.0.attn2")


@pytest.fixture
def evidence() -> Evidence:
    generator = torch.Generator().manual_seed(0)
    count, side, steps = 2 * len(KINDS), 8, 12
    references = torch.randint(0, 255, (len(KINDS), 3, side, side), generator=generator, dtype=torch.uint8).repeat_interleave(2, 0)
    images = references.clone()
    copied = torch.tensor([kind in ("global", "local") for kind in KINDS]).repeat_interleave(2)
    images[~copied] = 255 - images[~copied]
    mask = torch.ones(len(KINDS), 1, side, side, dtype=torch.bool)
    mask[[2, 4], :, :, 4:] = False
    mask[[3, 5], :, 4:] = False
    mask = mask.repeat_interleave(2, 0)
    bright = mask.flatten(2).transpose(1, 2).float().expand(-1, -1, 3) * 0.1 + 0.01
    return Evidence(
        images=images,
        caption=tuple(f"picture {i}" for i in range(len(KINDS)) for _ in range(2)),
        seed=torch.arange(2).repeat(len(KINDS)),
        timesteps=torch.arange(steps).flip(0),
        kind=tuple(kind for kind in KINDS for _ in range(2)),
        shape=("whole",) * count,
        plant_id=torch.arange(len(KINDS)).repeat_interleave(2),
        prompt_length=torch.full((count,), 3),
        references=references,
        planted_mask=mask,
        region=mask,
        guidance=torch.randn(steps, count, 3, side, side, generator=generator).half(),
        guidance_rms=torch.ones(steps, count),
        token_attention=torch.full((steps, count, 2, 4), 0.25).half(),
        end_attention={(step, layer): bright.half() for step in (0, steps - 1) for layer in LAYERS},
        derived={"variant_spread": torch.full((count,), 0.3), "variant_distance": torch.full((count,), torch.inf)},
        neighbours=Neighbours(torch.arange(51).repeat(count, 1), torch.full((count, 51), 0.4)),
        neighbours_whole=Neighbours(torch.arange(51).repeat(count, 1), torch.full((count, 51), 0.4)),
    )
