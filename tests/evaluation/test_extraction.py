import numpy as np
import pytest
import torch

from afterglow.evaluation.embeddings import Embedding
from afterglow.evaluation.extraction import background, embedding_space, judge, pixel_space
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations
from afterglow.measures.memorized import calibrated_l2
from afterglow.neighbors.gallery import Gallery


@pytest.fixture(scope="module")
def gallery():
    rows = np.random.default_rng(0).integers(0, 256, (70, 3, 8, 8), dtype=np.uint8)
    rows[1] = rows[0]
    return Gallery(rows, np.array([0, 0, *range(1, 69)]))


def generated(images):
    count = len(images)
    return Generations(torch.from_numpy(images), ("",) * count, torch.arange(count), torch.arange(3), provenance={})


@pytest.fixture(scope="module")
def judged(gallery):
    fresh = np.random.default_rng(1).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    fresh[0, :, 4:, 4:] = gallery.pixels[9][:, 4:, 4:]
    return judge(generated(np.concatenate([gallery.pixels[[1, 5]], fresh])), gallery, pixel_space(gallery), 2)


def test_a_copy_is_found_with_its_group_and_the_50_nearest_others(judged, gallery):
    assert judged.neighbors.clusters.shape == (5, 51) and judged.neighbors.clusters[:2, 0].tolist() == [0, 4]
    assert judged.extras["nearest_row"][:2].tolist() == [0, 5]  # twins: the first of them
    assert torch.equal(judged.references[1], torch.from_numpy(gallery.pixels[5]))
    everything = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    clusters, apart, _ = gallery.nearest(judged.images, everything[0], [{int(cluster)} for cluster in judged.neighbors.clusters[:, 0]])
    assert torch.equal(clusters, judged.neighbors.clusters[:, 1:])
    own = masked_rms(judged.images.float() / 255, judged.references.float() / 255, everything)
    assert torch.allclose(calibrated_l2(judged), own / (0.5 * apart.mean(1)), atol=1e-5)
    assert judged.kind == ("unprompted",) * 5


def test_a_copied_tile_is_found_in_its_tile_only(judged):
    zero = judged.extras["tile_distances"][2, :, 0] == 0
    assert zero.tolist() == [False, False, False, True]
    assert judged.extras["tile_rows"][2, 3] == 9 and judged.extras["tile_clusters"][2, 3] == 8


def test_it_is_written_and_read(judged, tmp_path):
    judged.save(tmp_path / "part=00000")
    again = Generations.load(tmp_path / "part=00000")
    assert torch.equal(again.extras["tile_distances"], judged.extras["tile_distances"])
    assert again.provenance["similarity"] == "pixels, 1 - RMS distance"


def test_similarity_in_pixels_and_among_training_images(judged, gallery):
    assert judged.extras["similarity"][:2].tolist() == [1, 1] and (judged.extras["similarity"][2:] < 1).all()
    training = background(pixel_space(gallery), 100)
    flat = to_unit(gallery.pixels)
    for row in (0, 1, 40):
        others = [i for i in range(70) if gallery.clusters[i] != gallery.clusters[row]]
        nearest = min(float((flat[row] - flat[i]).square().mean().sqrt()) for i in others)
        assert training[row] == pytest.approx(1 - nearest, abs=1e-6)
    assert len(background(pixel_space(gallery), 10)) == 10
    with pytest.raises(ValueError, match="one group"):
        background(pixel_space(Gallery(gallery.pixels, np.zeros(70, int))), 10)


def test_similarity_in_an_embedding_is_the_cosine_and_what_was_embedded_is_kept(gallery, tmp_path):
    calls = []

    def compute(images):
        calls.append(len(images))
        return torch.nn.functional.normalize(images.float().mean((2, 3)) - 100, dim=1)

    embedding = Embedding("colors", compute)
    space = embedding_space(embedding, gallery, tmp_path, (1, 2))
    assert sum(calls) == 69  # each image once, and twins together
    images = np.random.default_rng(2).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    found = judge(generated(images), gallery, space, 1).extras
    cosines = compute(torch.from_numpy(images)) @ compute(torch.from_numpy(gallery.pixels)).T
    assert torch.allclose(found["similarity"], cosines.max(1).values, atol=1e-6)
    calls.clear()
    assert np.array_equal(embedding_space(embedding, gallery, tmp_path).rows, space.rows) and not calls
    with pytest.raises(ValueError, match="broken of some image is NaN"):
        embedding_space(Embedding("broken", lambda images: torch.full((len(images), 2), torch.nan)), gallery, tmp_path / "b")
