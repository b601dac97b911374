import numpy as np
import pytest
import torch

from afterglow.evaluation.similarity import similarity_space
from afterglow.neighbors.gallery import Gallery


def test_similarity_space_is_pixels_or_an_embedding_cached_by_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    gallery = Gallery(np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8), np.arange(6))
    assert similarity_space(gallery).name.startswith("pixels")

    class Means(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) + 1

    torch.jit.script(Means()).save(str(tmp_path / "sscd.pt"))
    found = similarity_space(gallery, sscd_file=str(tmp_path / "sscd.pt"))
    assert found.name == "sscd.pt skew_320, cosine" and found.rows.shape == (6, 3)
    assert len(list((tmp_path / "cache" / "embeddings").iterdir())) == 1
    with pytest.raises(ValueError, match="Choose one similarity"):
        similarity_space(gallery, sscd_file="a", tokens="b")
