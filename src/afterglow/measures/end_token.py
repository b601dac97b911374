"""Bright Ending (Chen et al. 2025): the cross-attention that pixels pay to the end token, and its entropy."""

import math

import torch
from torch import Tensor

from afterglow.evidence import END_TOKEN_RULES, Evidence
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


def end_token_map(evidence: Evidence, layers: list[str], *, rule: str = "first_eos", step: int = -1) -> Tensor:
    """M = mean over layers of the attention to the end token at one step, averaged over heads, [B, h, w]; in (0, 1), unnormalised.

    rule: first_eos (official), last (the last position), eos_and_pads (their mean). step: index into the sampler's
    steps, -1 = the last. Layers of different grids are brought to the finest one bilinearly.
    """
    assert evidence.end_attention is not None
    index = step % len(evidence.timesteps)
    column = END_TOKEN_RULES.index(rule)
    grids = [evidence.end_attention[index, layer][..., column].float() for layer in layers]
    height, width = evidence.images.shape[-2:]
    squares = []
    for grid in grids:
        side = math.isqrt(grid.shape[1] * height // width)
        squares.append(grid.unflatten(1, (side, grid.shape[1] // side)))
    finest = max((square.shape[-2:] for square in squares), key=lambda size: size[0])
    return torch.stack([resize(square, finest) for square in squares]).mean(0)


def brightness(evidence: Evidence, layers: list[str]) -> Tensor:
    """mean_{h,w} m: how bright the ending is, [B]; a weak detector, and the paper's histogram."""
    return end_token_map(evidence, layers).flatten(1).mean(1)


def attention_entropy(evidence: Evidence, *, last: bool) -> Tensor:
    """H_t = -sum_i a_t[i] ln a_t[i] of the attention averaged over pixels, heads and layers, [B], in nats.

    The term that the detectors of Ren et al. 2024 are made of, at the first step, or its mean over the last fifth of the steps.
    """
    assert evidence.token_attention is not None
    attention = evidence.token_attention.float().mean(2)  # [T, B, layers, L] => [T, B, L]
    entropy = -torch.special.xlogy(attention, attention).sum(-1)
    return entropy[-max(1, len(entropy) // 5) :].mean(0) if last else entropy[0]
