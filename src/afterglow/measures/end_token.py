"""Bright Ending (Chen et al. 2025): the cross-attention that pixels pay to the end token, averaged over heads."""

import math

import torch
from torch import Tensor

from afterglow.generations import END_TOKEN_RULES, Generations
from afterglow.measures.guidance import resize

BRIGHT_ENDING_LAYERS = "down_blocks.0"  # the first two cross-attention modules of Stable Diffusion (METHODS (a))


def short(layer: str) -> str:
    """'up_blocks.1.attentions.0.transformer_blocks.0.attn2' => 'up_blocks.1.attentions.0'."""
    return layer.split(".transformer_blocks")[0]


def layer_sets(layers: list[str]) -> dict[str, list[str]]:
    """Named sets of layers: the authors' (be), all, and each layer alone."""
    sets = {"be": [layer for layer in layers if layer.startswith(BRIGHT_ENDING_LAYERS)], "all": list(layers)}
    sets |= {short(layer): [layer] for layer in layers}
    return {name: chosen for name, chosen in sets.items() if chosen}


def end_token_map(generations: Generations, layers: list[str], *, rule: str = "first_eos", step: int = -1) -> Tensor:
    """M = mean over layers of the attention to the end token at one step, averaged over heads, [B, h, w]; in (0, 1), unnormalized.

    rule: first_eos (official), last (the last position), eos_and_pads (their mean). step: index into the sampler's
    steps, -1 = the last. Layers of different grids are brought to the finest one bilinearly.
    """
    assert generations.end_attention is not None
    index = step % len(generations.timesteps)
    column = END_TOKEN_RULES.index(rule)
    grids = [generations.end_attention[index, layer][..., column].float() for layer in layers]
    height, width = generations.images.shape[-2:]
    squares = []
    for grid in grids:
        side = math.isqrt(grid.shape[1] * height // width)
        squares.append(grid.unflatten(1, (side, grid.shape[1] // side)))
    finest = max((square.shape[-2:] for square in squares), key=lambda size: size[0])
    return torch.stack([resize(square, finest) for square in squares]).mean(0)


def bright_ending(generations: Generations, layers: list[str]) -> Tensor:
    """m, [B, h, w]: the map of the last step, by the end-token rule that was asked for when the generations was collected."""
    return end_token_map(generations, layers, rule=generations.provenance.get("end_token", "first_eos"))


def brightness(generations: Generations, layers: list[str]) -> Tensor:
    """mean_{h,w} m: how bright the ending is, [B]; a weak detector, and the paper's histogram."""
    return bright_ending(generations, layers).flatten(1).mean(1)


def brightest(generations: Generations, layers: list[str]) -> Tensor:
    """max_{h,w} m, [B]."""
    return bright_ending(generations, layers).flatten(1).amax(1)


def effective_area(generations: Generations, layers: list[str]) -> Tensor:
    """(sum m)^2 / (n sum m^2), [B]: the share of the image that a mask as uneven as m would cover; 1 for a constant m."""
    mask = bright_ending(generations, layers).flatten(1)
    return mask.sum(1).square() / (mask.shape[1] * mask.square().sum(1))
