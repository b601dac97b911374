"""Token-attention entropy (Ren et al. 2024, MemAttn; docs/methods.md#attention-entropy): memorized captions attend to more tokens."""

from collections.abc import Sequence

from torch import Tensor

from afterglow.functional import attention
from afterglow.generations import Generations


def attention_entropy(generations: Generations, *, last: bool) -> Tensor:
    """Entropy of the attention averaged over pixels, heads and layers, [B], in nats.

    last: mean over the last fifth of the steps (the first term of D) instead of the first step.
    """
    assert generations.token_attention is not None
    steps = attention.entropy(generations.token_attention.float().mean(2))  # [T, B, layers, L] => [T, B]
    return steps[-attention.last_fifth(len(generations.timesteps)) :].mean(0) if last else steps[0]


def memattn_d(generations: Generations, *, absolute: bool = False) -> Tensor:
    """D of the attention averaged over layers, [B], in nats; higher means memorized. absolute: the paper's form, not the code's."""
    assert generations.token_attention is not None and generations.prompt_length is not None
    return attention.memattn_d(generations.token_attention.float().mean(2), generations.prompt_length, absolute=absolute)


def memattn_e(generations: Generations, layers: Sequence[int]) -> Tensor:
    """E: entropy at the first step in one module, [B], in nats; layers: its indices in token_attention. Higher means memorized."""
    assert generations.token_attention is not None
    return attention.entropy(generations.token_attention[0][:, layers].float().mean(1))
