import numpy as np
import pytest
import torch

from afterglow.data import search
from afterglow.data.search import distances, pieces


def test_distances_are_exact_in_each_images_own_mask(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)
    images = torch.from_numpy(np.concatenate([pixels[[4, 9]], generator.integers(0, 256, (3, 3, 6, 6), dtype=np.uint8)]))
    masks = torch.from_numpy(generator.random((5, 1, 6, 6)) < 0.5)
    masks[3] = masks[1]
    monkeypatch.setattr(search, "PIECE", 7 * 3 * 36)
    monkeypatch.setattr(search, "QUERIES", 2)
    parts = list(distances(images, masks, pixels))
    assert [part.stop - part.start for part, _ in parts] == [7] * 7 + [1]
    found = torch.cat([near for _, near in parts], dim=1)
    for row in range(5):
        inside = np.broadcast_to(masks[row].numpy(), (3, 6, 6))
        apart = (images[row].numpy().astype(float) - pixels.astype(float))[:, inside] / 255
        np.testing.assert_allclose(found[row].numpy(), np.sqrt((apart**2).mean(1)), rtol=1e-6)
    assert found[0, 4] == 0 and found[1, 9] == 0  # a copy is at 0, not at a rounding error


def test_pieces_cover_a_set_of_any_size():
    class Large:
        shape = (5, 3, 4096, 4096)

        def __len__(self) -> int:
            return 5

    assert [(part.start, part.stop) for part in pieces(Large())] == [(row, row + 1) for row in range(5)]
    assert list(pieces(np.zeros((3, 1, 2, 2), np.uint8))) == [slice(0, 3)]


@pytest.mark.gpu
def test_a_gpu_finds_the_same():
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (64, 3, 16, 16), dtype=np.uint8)
    images, masks = torch.from_numpy(pixels[:8]), torch.from_numpy(generator.random((8, 1, 16, 16)) < 0.5)
    for (_, here), (_, there) in zip(distances(images, masks, pixels), distances(images, masks, pixels, device="cuda"), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-7, atol=1e-7)
