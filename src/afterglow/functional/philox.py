"""Random numbers that are a pure function of a seed, a purpose and the number of a sample, on any device (docs/methods.md#draws).

A counter-based generator (Philox4x32-10, Salmon et al. 2011) in tensor operations: all samples of a batch are drawn in one call, and a
sample's numbers do not depend on its batch, on the number of processes, or on the device.
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

WORD = 2**32
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


class Stream(IntEnum):
    """What is drawn: numbers of different streams are independent."""

    NOISE = 0
    TIMESTEP = 1
    BACKGROUND = 2
    POSTERIOR = 3
    TEXT_NOISE = 4


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four random words for each counter.

    Args:
        counter: four int64 tensors of words in [0, 2^32) whose shapes broadcast.
        key: two words.

    Returns:
        Four int64 tensors of words in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # the 64 bits of a product are right although int64 overflows; masks remove what the shift and the low words carry above 32 bits
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (second >> 32 ^ c1).bitwise_xor_(k0).bitwise_and_(WORD - 1), second
        c2, c3 = (first >> 32 ^ c3).bitwise_xor_(k1).bitwise_and_(WORD - 1), first
        k0, k1 = (k0 + KEY_INCREMENTS[0]) % WORD, (k1 + KEY_INCREMENTS[1]) % WORD
    return [c0, c1 & WORD - 1, c2, c3 & WORD - 1]


def random_words(seed: int, stream: Stream, index: Tensor, count: int) -> Tensor:
    """Draw `count` words for each sample, int64 [B, count] in [0, 2^32), on the device of `index`.

    Args:
        seed: seed of the training; its lowest 64 bits count.
        stream: what the numbers are for.
        index: numbers of the samples, int64 [B].
        count: words per sample.
    """
    return torch.stack(_blocks(seed, stream, index, count), dim=-1).flatten(1)[:, :count]


def _blocks(seed: int, stream: Stream, index: Tensor, count: int) -> list[Tensor]:
    """Words 0, 1, 2, 3 of each four of `random_words`, four int64 tensors [B, ceil(count / 4)]."""
    block = torch.arange(-(-count // 4), device=index.device)
    low, high = (index & WORD - 1)[:, None], (index >> 32 & WORD - 1)[:, None]
    return philox((block, torch.full_like(block, stream), low, high), (seed % WORD, (seed >> 32) % WORD))


def random_integers(words: Tensor, high: int | Tensor) -> Tensor:
    """Integers in [0, high) from words, int64; the bias is below high / 2^32.

    >>> random_integers(random_words(0, Stream.TIMESTEP, torch.arange(4), 1), 1000)[:, 0]
    tensor([417, 475,   8, 126])
    """
    return words * high >> 32


def random_normal(seed: int, stream: Stream, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Draw standard normal numbers, float32 [B, *shape] (Box-Muller in float64, so that devices agree); arguments as of `random_words`."""
    count, normal = math.prod(shape), list[Tensor]()
    uniform = [words.double().add_(0.5).div_(WORD) for words in _blocks(seed, stream, index, count)]
    for first, second in (uniform[:2], uniform[2:]):
        radius, angle = first.log_().mul_(-2).sqrt_(), second.mul_(2 * math.pi)
        normal += [angle.cos().mul_(radius).float(), angle.sin().mul_(radius).float()]
    return torch.stack(normal, dim=-1).flatten(1)[:, :count].reshape(len(index), *shape)
