import math

import pytest
import torch
from scipy import stats

from afterglow.functional.philox import Stream, philox, random_integers, random_normal, random_words

M = 2**32 - 1
KNOWN = [  # Salmon et al. 2011, the published test vectors of philox4x32-10: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((M, M, M, M), (M, M), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_words(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert [word.item() for word in philox([torch.tensor(word) for word in counter], key)] == list(expected)


def by_hand(counter: list[int], key: list[int]) -> list[int]:
    """The same by Python's integers."""
    for _ in range(10):
        high0, low0 = divmod(counter[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(counter[2] * 0xCD9E8D57, 2**32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


def test_words_of_a_sample_are_those_of_its_counters() -> None:
    seed, index = 0x1234567_89ABCDEF, torch.tensor([0, 7, 2**32 + 5, 2**40 + 1])
    words = random_words(seed, Stream.POSTERIOR, index, 10)
    for row, number in enumerate(index.tolist()):
        expected = [by_hand([block, 3, number % 2**32, number >> 32], [seed % 2**32, seed >> 32]) for block in range(3)]
        assert words[row].tolist() == sum(expected, [])[:10]


def test_numbers_depend_on_seed_stream_and_index_only() -> None:
    index = torch.arange(100, 106)
    whole = random_normal(5, Stream.NOISE, index, (3, 5, 5))
    assert whole.dtype == torch.float32 and whole.shape == (6, 3, 5, 5)
    assert torch.equal(random_normal(5, Stream.NOISE, index[[4, 1]], (3, 5, 5)), whole[[4, 1]])
    assert torch.equal(random_normal(5, Stream.NOISE, index, (2, 5, 5)), whole[:, :2])  # a longer draw begins alike
    others = random_normal(6, Stream.NOISE, index, (3, 5, 5)), random_normal(5, Stream.TEXT_NOISE, index, (3, 5, 5))
    assert not any(torch.equal(whole, other) for other in others)


def test_normal_numbers_of_neighboring_seeds_and_samples_are_normal_and_unrelated() -> None:
    draws = torch.stack([random_normal(seed, Stream.NOISE, torch.arange(40), (250,)) for seed in range(4)]).flatten(0, 1).double()
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(draws) - torch.eye(160)
    assert correlation.abs().max() < 6 / math.sqrt(250) and abs(correlation.sum() / 160 / 159) < 1e-3
    assert abs(torch.corrcoef(torch.stack([draws[:, 0::2].flatten(), draws[:, 1::2].flatten()]))[0, 1]) < 0.03  # within a pair


def test_integers_are_uniform_and_below_their_limit() -> None:
    words = random_words(3, Stream.BACKGROUND, torch.arange(7000), 1)[:, 0]
    assert stats.chisquare(torch.bincount(random_integers(words, 7), minlength=7).numpy()).pvalue > 1e-3
    limits = torch.tensor([1, 2, 1000] * 2333 + [5])
    assert (random_integers(words, limits) < limits).all() and random_integers(torch.tensor([2**32 - 1]), 1000).item() == 999
