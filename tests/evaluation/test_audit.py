"""The parts of an audit; tests/cli/test_audit.py has the whole of it against models that copy everything, a region, or nothing."""

import numpy as np
import pytest
import torch

from afterglow.analysis.audit import PART_COPY, WHOLE_COPY
from afterglow.evaluation.audit import AuditedSet, audit_captions, audit_request, compared_with_each_other, evidence_of
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


def test_without_other_images_each_is_compared_with_all_that_do_not_share_its_content(images):
    request = audit_request(images, [""], 2, "cpu")
    assert len(set(request.tile_clusters[0])) == 27 and all(len(set(row)) == 30 for row in request.tile_clusters[1:])
    unseen = compared_with_each_other(request)
    unit, full = to_unit(images.pixels), torch.ones(1, 8, 8)
    apart = torch.stack([masked_rms(one, unit, full) for one in unit])
    other = apart.sort(1).values[:, 1:]  # the image itself comes first
    assert np.allclose(np.sort(unseen.whole), (other[:, 0] / (0.5 * other[:, 1:].mean(1))).sort().values, atol=1e-5)
    assert unseen.limits == {WHOLE_COPY: 1, PART_COPY: 1} and (unseen.tile > 1).all()  # those that share a quarter as well


def test_evidence_names_the_generation_nearest_to_each_image(images, tmp_path):
    request = audit_request(images, [""] * 4, 2, "cpu")
    made = np.random.default_rng(1).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    made[2] = images.pixels[7]
    for part in (0, 1):
        some = torch.from_numpy(made[2 * part : 2 * part + 2])
        generations = Generations(some, ("", ""), torch.arange(2), torch.arange(2), provenance={})
        request.attach(generations, range(2)).save(tmp_path / f"part={part}")
    found = evidence_of(sorted(tmp_path.iterdir()), request)
    apart = torch.stack([masked_rms(one, to_unit(made), torch.ones(1, 8, 8)) for one in to_unit(images.pixels)])
    assert np.array_equal(found.nearest, apart.argmin(1)) and np.allclose(found.distance, apart.amin(1), atol=1e-6)
    assert found.cluster[2] == 7 and found.whole[2] == 0 and (found.tiles[2] == 0).all() and found.tiles.shape == (4, 4)
