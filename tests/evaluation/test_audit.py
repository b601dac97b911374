"""The parts of an audit; tests/cli/test_audit.py has the whole of it against models that copy everything, a region, or nothing."""

import numpy as np
import pytest
import torch

from afterglow.analysis.audit import WHOLE_COPY
from afterglow.evaluation.audit import audit_captions, audit_request, compared_with_each_other, evidence_of
from afterglow.evaluation.audited_set import AuditedSet
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    pixels[3:6, :, :4, :4] = pixels[2, :, :4, :4]
    return AuditedSet(pixels, ("a", "b", "b") * 10, tuple(map(str, range(30))), np.arange(30), 30)


def test_captions_of_most_images_come_first(small_plain, small_captioned):
    assert audit_captions(small_captioned(), ["a", "b", "b"], 5) == ["b", "a", "b", "a", "b"]
    assert audit_captions(small_plain(), ["a"], 2) == audit_captions(small_captioned(), ["", ""], 2) == ["", ""]


def test_without_other_images_each_is_compared_with_all_that_do_not_share_its_content(images, small_plain):
    request = audit_request(small_plain(), images, [""])
    unseen = compared_with_each_other(request, torch.zeros(1, 0, 64, dtype=torch.bool))
    unit, full = to_unit(images.pixels), torch.ones(1, 8, 8)
    apart = torch.stack([masked_rms(one, unit, full) for one in unit])
    other = apart.sort(1).values[:, 1:]  # the image itself comes first
    assert np.allclose(np.sort(unseen.whole), (other[:, 0] / (0.5 * other[:, 1])).sort().values, atol=1e-5)
    # those that share a quarter are not compared in it, but in windows that contain a part of it
    assert unseen.limits[WHOLE_COPY] == 1 and (unseen.part > 0.5).all() and (np.sort(unseen.part)[4:] > 1).all()


def test_evidence_names_the_nearest_generations_and_all_images_with_the_content_of_a_region(images, small_plain):
    request = audit_request(small_plain(), images, [""] * 4)
    made = np.random.default_rng(1).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    made[2] = images.pixels[7]
    made[3, :, :4, :4] = images.pixels[2, :, :4, :4]
    parts = []
    for part in (0, 1):
        some = torch.from_numpy(made[2 * part : 2 * part + 2])
        generations = Generations(some, ("", ""), torch.arange(2), torch.arange(2), provenance={})
        parts.append(request.attach(generations, range(2)))
    found, free = evidence_of(parts, request)
    apart = torch.stack([masked_rms(one, to_unit(made), torch.ones(1, 8, 8)) for one in to_unit(images.pixels)])
    assert np.array_equal(found.nearest, apart.argmin(1)) and np.allclose(found.distance, apart.amin(1), atol=1e-6)
    assert found.cluster[2] == 7 and found.whole[2] == 0 and free.shape == (4, 0, 64)
    of_last = found.parts[(found.parts["generation"] == 3) & (found.parts["value"] == 0)]
    assert set(of_last["image"]) == {2, 3, 4, 5} and len(of_last) == 4 * 5  # a window of half the side, and those within it
    corner = [row + column for row in (0, 8, 16, 24) for column in range(4)]
    assert np.flatnonzero(found.cells[of_last["region"].iloc[0]]).tolist() == corner
    assert set(found.parts[found.parts["generation"] == 2]["image"]) == {7}
