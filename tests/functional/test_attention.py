import math

import pytest
import torch

from afterglow.functional.attention import effective_area, entropy, entropy_terms, last_fifth, mean_of_grids, memattn_d


def test_entropy_of_written_shares():
    written = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
    assert entropy(written).tolist() == pytest.approx([math.log(2), 0, 1.5 * math.log(2)])
    torch.testing.assert_close(entropy_terms(written).sum(-1), entropy(written))


def test_memattn_d_adds_the_change_of_the_entropy_behind_the_first_end_token():
    flat, sharp = torch.full((4,), 0.25), torch.tensor([1.0, 0.0, 0.0, 0.0])
    attention = torch.stack([sharp, flat, flat, flat, flat])[:, None]  # five steps, one sample
    half = math.log(4) / 2  # of the two summary tokens of a prompt of three
    assert memattn_d(attention, torch.tensor([3])).item() == pytest.approx(math.log(4) + half)
    back = attention.flip(0)
    assert memattn_d(back, torch.tensor([3])).item() == pytest.approx(-half)
    assert memattn_d(back, torch.tensor([3]), absolute=True).item() == pytest.approx(half)


def test_last_fifth_is_at_least_one_step():
    assert [last_fifth(steps) for steps in (1, 4, 5, 10, 50)] == [1, 1, 1, 2, 10]


def test_mean_of_grids_keeps_the_aspect_of_the_image():
    wide = torch.arange(8.0)[None]
    assert torch.equal(mean_of_grids([wide], aspect=0.5), wide.view(1, 2, 4))
    assert torch.equal(mean_of_grids([torch.ones(1, 4), torch.zeros(1, 16)]), torch.full((1, 4, 4), 0.5))


def test_effective_area_of_a_binary_mask_is_its_share():
    mask = torch.zeros(2, 4, 4)
    mask[0, 0], mask[1] = 3.0, 0.1
    assert effective_area(mask).tolist() == pytest.approx([0.25, 1.0])
