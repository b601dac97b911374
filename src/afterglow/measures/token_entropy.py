"""Token-attention entropy, Ren et al. 2024 (MemAttn, METHODS (d)): memorized captions spread their attention over more tokens."""

import torch
from torch import Tensor

from afterglow.generations import Generations

EARLY_LAYER = "down_blocks.1.attentions.1"  # of Stable Diffusion: the layer that E reads


def _terms(attention: Tensor) -> Tensor:
    """-a ln a, 0 where a is 0."""
    return -torch.special.xlogy(attention, attention)


def entropy(attention: Tensor) -> Tensor:
    """H = -sum_i a[i] ln a[i] of shares of attention, [..., L] => [...], in nats."""
    return _terms(attention).sum(-1)


def attention_entropy(generations: Generations, *, last: bool) -> Tensor:
    """H_t = -sum_i a_t[i] ln a_t[i] of the attention averaged over pixels, heads and layers, [B], in nats.

    At the first step, or its mean over the last fifth of the steps: the first term of D alone.
    """
    assert generations.token_attention is not None
    steps = entropy(generations.token_attention.float().mean(2))  # [T, B, layers, L] => [T, B]
    return steps[-_num_last(generations) :].mean(0) if last else steps[0]


def last_steps_entropy(generations: Generations, *, absolute: bool = False) -> Tensor:
    """D = mean_{last fifth} H_t + (mean_{last fifth} H^S_t - H^S_0), [B], in nats; higher means memorized.

    H^S is the partial sum over the summary tokens: the first end token and everything behind it. The paper writes the second
    term with an absolute value, the authors' code without (the default here).
    """
    assert generations.token_attention is not None and generations.prompt_length is not None
    terms = _terms(generations.token_attention.float().mean(2))  # [T, B, L]
    summary = torch.arange(terms.shape[-1]) >= generations.prompt_length[:, None] - 1
    partial, last = (terms * summary).sum(-1), _num_last(generations)
    change = partial[-last:].mean(0) - partial[0]
    return terms.sum(-1)[-last:].mean(0) + (change.abs() if absolute else change)


def first_step_entropy(generations: Generations, layer: int) -> Tensor:
    """E = H_0 of one layer, [B], in nats; layer: its place in token_attention. Higher means memorized."""
    assert generations.token_attention is not None
    return entropy(generations.token_attention[0, :, layer].float())


def _num_last(generations: Generations) -> int:
    return max(1, len(generations.timesteps) // 5)
