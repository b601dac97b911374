import numpy as np
import pytest
import torch

from afterglow.measures.similarity import copy_similarity, similarity


@pytest.fixture
def generations(make_generations):
    return make_generations(3, extras={"sscd": torch.tensor([0.2, 0.7, 0.5])})


def test_s_is_minus_the_l2_distance_where_sscd_does_not_say_memorized(generations):
    distances = np.linalg.norm((generations.images.double() - generations.references.double()).flatten(1).numpy() / 255, axis=1)
    assert similarity(generations).tolist() == pytest.approx([-distances[0], 0.0, 0.0], rel=1e-5)
    assert copy_similarity(generations).tolist() == pytest.approx([0.2, 0.7, 0.5])


def test_the_latent_variant_takes_the_difference_of_encoded_images(make_generations):
    apart = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    generations = make_generations(3, extras={"sscd": torch.tensor([0.2, 0.7, 0.1]), "latent_difference": apart})
    norms, mask = apart.flatten(1).norm(dim=1).tolist(), torch.full((3, 2, 2), 0.5)
    assert similarity(generations, latent=True).tolist() == pytest.approx([-norms[0], 0.0, -norms[2]], rel=1e-5)
    torch.testing.assert_close(similarity(generations, mask, latent=True), similarity(generations, latent=True) / 2)


@pytest.mark.parametrize("side", [8, 4])
def test_ls_weights_the_difference_and_its_variant_does_not_grow_with_the_mask(generations, side):
    mask = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))
    wide = torch.nn.functional.interpolate(mask[:, None], size=(8, 8), mode="bilinear", align_corners=False)[:, 0].double().numpy()
    difference = (generations.images.double() - generations.references.double())[0].numpy() / 255
    plain, normalized = similarity(generations, mask), similarity(generations, mask, normalized=True)
    assert plain[0].item() == pytest.approx(-np.linalg.norm(difference * wide[0]), rel=1e-5)
    assert normalized[0].item() == pytest.approx(-np.linalg.norm(difference * wide[0]) / wide[0].mean(), rel=1e-5)
    torch.testing.assert_close(similarity(generations, 7 * mask), 7 * plain)
    torch.testing.assert_close(similarity(generations, 7 * mask, normalized=True), normalized)
    torch.testing.assert_close(similarity(generations, torch.ones_like(mask)), similarity(generations))
