"""Scores and maps of cross-attention: token entropy (Ren et al. 2024) and the map of the end token (Chen et al. 2025)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.attention_names import TOKEN_GROUPS
from afterglow.functional.pixels import resize


def token_groups(prompt_length: Tensor, length: int) -> dict[str, Tensor]:
    """The positions of each of TOKEN_GROUPS, bool [B, L] (docs/methods.md#token-groups).

    >>> {name: positions[0].nonzero()[:, 0].tolist() for name, positions in token_groups(torch.tensor([4]), 6).items()}
    {'bos': [0], 'words': [1, 2], 'first_end': [3], 'pads': [4, 5], 'end_and_pads': [3, 4, 5]}

    Args:
        prompt_length: tokens of each prompt including BOS and the first end token, int [B].
        length: L, number of positions.
    """
    positions, end = torch.arange(length, device=prompt_length.device), (prompt_length - 1)[:, None]
    groups = (positions == 0).expand(len(end), -1), (positions > 0) & (positions < end), positions == end, positions > end, positions >= end
    return dict(zip(TOKEN_GROUPS, groups, strict=True))


def entropy_terms(attention: Tensor) -> Tensor:
    """-a ln a of each share of attention, in nats; 0 where a is 0."""
    return -torch.special.xlogy(attention, attention)


def entropy(attention: Tensor) -> Tensor:
    """H = -sum_i a_i ln a_i over the last dimension, [..., L] => [...], in nats (docs/methods.md#attention-entropy).

    >>> entropy(torch.full((4,), 0.25))
    tensor(1.3863)
    """
    return entropy_terms(attention).sum(-1)


def memattn_d(attention: Tensor, prompt_length: Tensor, *, absolute: bool = False) -> Tensor:
    """D = mean_{last fifth} H_t + (mean_{last fifth} H^S_t - H^S_0), [B], in nats; high if memorized (docs/methods.md#attention-entropy).

    H^S is the partial sum over the summary tokens: the first end token and every token behind it.

    Args:
        attention: attention averaged over pixels, heads and layers, float [T, B, L].
        prompt_length: tokens of each prompt including BOS and the first end token, int [B].
        absolute: take the absolute value of the second term, as the paper writes it. The authors' code does not.
    """
    terms = entropy_terms(attention)
    summary = torch.arange(terms.shape[-1]) >= prompt_length[:, None] - 1
    partial, last = (terms * summary).sum(-1), last_fifth(len(terms))
    change = partial[-last:].mean(0) - partial[0]
    return terms.sum(-1)[-last:].mean(0) + (change.abs() if absolute else change)


def last_fifth(num_steps: int) -> int:
    """Number of steps in the last fifth of a sampler, at least 1."""
    return max(1, num_steps // 5)


def mean_of_grids(grids: Sequence[Tensor], aspect: float = 1.0) -> Tensor:
    """Mean over layers of attention maps, brought bilinearly to the finest grid, [B, h, w].

    Args:
        grids: one map per layer, float [B, h*w]; the grids of layers may differ.
        aspect: height over width of the image.
    """
    squares = []
    for grid in grids:
        side = math.isqrt(round(grid.shape[1] * aspect))
        squares.append(grid.unflatten(1, (side, grid.shape[1] // side)))
    finest = max((square.shape[-2:] for square in squares), key=lambda size: size[0])
    return torch.stack([resize(square, finest) for square in squares]).mean(0)


def effective_area(mask: Tensor) -> Tensor:
    """(sum m)^2 / (n sum m^2), [B]: the share of the image that a binary mask as uneven as m would cover; 1 for a constant mask.

    Args:
        mask: soft [B, h, w].
    """
    flat = mask.flatten(1)
    return flat.sum(1).square() / (flat.shape[1] * flat.square().sum(1))
