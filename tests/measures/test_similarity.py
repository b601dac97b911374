import numpy as np
import pytest
import torch

from afterglow.measures.similarity import copy_similarity, similarity


@pytest.fixture
def evidence(make_evidence):
    return make_evidence(3, derived={"sscd": torch.tensor([0.2, 0.7, 0.5])})


def test_s_is_minus_the_l2_distance_where_sscd_does_not_say_memorized(evidence):
    distances = np.linalg.norm((evidence.images.double() - evidence.references.double()).flatten(1).numpy() / 255, axis=1)
    assert similarity(evidence).tolist() == pytest.approx([-distances[0], 0.0, 0.0], rel=1e-5)
    assert copy_similarity(evidence).tolist() == pytest.approx([0.2, 0.7, 0.5])


def test_the_latent_variant_takes_the_difference_of_encoded_pictures(make_evidence):
    apart = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    evidence = make_evidence(3, derived={"sscd": torch.tensor([0.2, 0.7, 0.1]), "latent_difference": apart})
    norms, mask = apart.flatten(1).norm(dim=1).tolist(), torch.full((3, 2, 2), 0.5)
    assert similarity(evidence, latent=True).tolist() == pytest.approx([-norms[0], 0.0, -norms[2]], rel=1e-5)
    torch.testing.assert_close(similarity(evidence, mask, latent=True), similarity(evidence, latent=True) / 2)


@pytest.mark.parametrize("side", [8, 4])
def test_ls_weights_the_difference_and_its_variant_does_not_grow_with_the_mask(evidence, side):
    mask = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))
    wide = torch.nn.functional.interpolate(mask[:, None], size=(8, 8), mode="bilinear", align_corners=False)[:, 0].double().numpy()
    difference = (evidence.images.double() - evidence.references.double())[0].numpy() / 255
    plain, normalised = similarity(evidence, mask), similarity(evidence, mask, normalised=True)
    assert plain[0].item() == pytest.approx(-np.linalg.norm(difference * wide[0]), rel=1e-5)
    assert normalised[0].item() == pytest.approx(-np.linalg.norm(difference * wide[0]) / wide[0].mean(), rel=1e-5)
    torch.testing.assert_close(similarity(evidence, 7 * mask), 7 * plain)
    torch.testing.assert_close(similarity(evidence, 7 * mask, normalised=True), normalised)
    torch.testing.assert_close(similarity(evidence, torch.ones_like(mask)), similarity(evidence))
