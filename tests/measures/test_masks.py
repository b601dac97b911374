import numpy as np
import pytest
import torch

from afterglow.measures.masks import normalize, resize_to, smooth, threshold

MAPS = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.5


def test_normalizations():
    assert torch.equal(normalize(MAPS, "none"), MAPS)
    torch.testing.assert_close(normalize(MAPS, "sum").sum((1, 2)), torch.ones(3))
    squeezed = normalize(MAPS, "minmax")
    assert (squeezed.amin((1, 2)) == 0).all() and torch.allclose(squeezed.amax((1, 2)), torch.ones(3))
    assert (normalize(torch.full((1, 4, 4), 3.0), "minmax") == 0).all()
    with pytest.raises(ValueError, match="not by 'max'"):
        normalize(MAPS, "max")


def test_smoothing_is_a_gaussian_and_keeps_what_is_flat():
    assert torch.equal(smooth(MAPS, 0), MAPS)
    torch.testing.assert_close(smooth(torch.full((1, 9, 9), 0.3), 1.5), torch.full((1, 9, 9), 0.3))
    point = torch.zeros(1, 15, 15)
    point[0, 7, 7] = 1
    away = np.arange(-4, 5)
    line = np.exp(-(away**2) / (2 * 1.3**2))
    expected = np.outer(line, line) / line.sum() ** 2
    np.testing.assert_allclose(smooth(point, 1.3)[0, 3:12, 3:12], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="-1"):
        smooth(MAPS, -1)


def test_resizing():
    assert torch.equal(resize_to(MAPS, (12, 10), "nearest"), MAPS.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert resize_to(MAPS, (3, 3)).shape == (3, 3, 3)
    with pytest.raises(ValueError, match="cubic"):
        resize_to(MAPS, (3, 3), "cubic")


def slow_otsu(values):
    """Every value as a threshold; the smallest sum of squares inside the two classes."""
    best = min(
        sorted(set(values.tolist()))[:-1],
        key=lambda t: sum(((part - part.mean()) ** 2).sum() for part in (values[values <= t], values[values > t])),
    )
    return best


def test_threshold_rules_that_need_no_truth():
    found = threshold(MAPS, "otsu")
    assert found.tolist() == pytest.approx([slow_otsu(m.double().numpy().ravel()) for m in MAPS])
    assert threshold(MAPS, "quantile", 0.8).tolist() == pytest.approx([np.quantile(m.numpy(), 0.8) for m in MAPS])
    assert threshold(MAPS, "fixed", 0.6).tolist() == pytest.approx([0.6] * 3)
    assert threshold(torch.ones(1, 2, 2), "otsu").tolist() == [1.0]
    two = torch.tensor([[[0.0, 0.1], [0.9, 1.0]]])
    assert 0.1 <= threshold(two, "otsu").item() < 0.9
    with pytest.raises(ValueError, match="'best'"):
        threshold(MAPS, "best")
