import numpy as np
import pandas as pd
import pytest

from afterglow.analysis.audit import NO_COPY as NOTHING
from afterglow.analysis.audit import PART_COPY as PART
from afterglow.analysis.audit import WHOLE_COPY as WHOLE
from afterglow.analysis.audit import AuditMatches, Unseen, audit_verdicts, cells_per_side, copied_mask, heldout_evidence, since
from afterglow.errors import AfterglowError

# Six images: 0 and 1 are near-duplicates, 2 and 3 share the upper left, 4 and 5 are alone.
CLUSTERS = np.array([0, 0, 1, 2, 3, 4])
CELLS = np.zeros((4, 16), bool)
for number, cells in enumerate(([0, 1, 4, 5], [1, 2, 5, 6], [0, 1, 2, 3], [15])):
    CELLS[number, cells] = True
COVERAGE = np.full(16, 3)  # windows that contain each cell
COVERAGE[2] = 2


def evidence(whole, cluster, *parts):
    """parts: (region, generation, value, images) each."""
    rows = [(region, generation, image, value) for region, generation, value, images in parts for image in images]
    frame = pd.DataFrame(rows, columns=["region", "generation", "image", "value"])
    distance = np.linspace(0.1, 0.6, 6, dtype=np.float32)
    return AuditMatches(np.array(whole), np.array(cluster), frame, CELLS, COVERAGE, np.full(6, 3), distance)


def test_each_image_gets_its_verdict_and_its_evidence():
    never = Unseen(np.linspace(1.1, 3, 40), np.linspace(1.1, 3, 40))
    found = audit_verdicts(
        evidence(
            [0.5, 0.3, 2.0, 2.0, 2.0],  # two copies of the near-duplicates, a copied region, nothing
            [0, 0, 3, 1, 1],
            (3, 1, 0.1, [0, 1, 5]),  # regions of a whole copy are no copies of a part
            (0, 2, 0.4, [2, 3]),
            (1, 2, 0.6, [2, 3]),
            (2, 3, 0.5, [2]),
        ),
        CLUSTERS,
        never,
    )
    assert found["verdict"].tolist() == [WHOLE, WHOLE, PART, PART, NOTHING, NOTHING]
    assert found["generations"].tolist() == [2, 2, 2, 1, 0, 0] and found["generation"].tolist() == [1, 1, 2, 2, 3, 3]
    assert found["calibrated_l2"].tolist()[:4] == [0.3, 0.3, 0.4, 0.4] and found["calibrated_l2"][4:].isna().all()
    assert found["cells"].tolist() == [[], [], [0, 1, 2, 4, 5], [0, 1, 2, 4, 5], [], []]  # of the best generation alone
    assert found["others_alike"].tolist() == [1, 1, 1, 1, 0, 0]
    assert found["duplicates"].tolist() == [1, 1, 0, 0, 0, 0] and (found["unseen_as_close"] == 0).all()
    assert np.allclose(found["distance"], np.linspace(0.1, 0.6, 6))


def test_each_fold_of_the_unseen_images_sets_a_limit_and_the_smaller_is_used():
    near = Unseen(np.array([0.2, 0.1, 2.0, 2.0]), np.array([2.0, 0.4, 2.0, 2.0]))
    assert near.limits == {WHOLE: 0.1, PART: 0.4} and near.passing(WHOLE) == (1, 4) and near.passing(PART) == (1, 4)
    assert Unseen(np.full(32, 2.0), np.full(32, 2.0)).limits[PART] == 1 and Unseen(np.full(31, 2.0), np.full(31, 2.0)).limits[PART] == 0.5
    assert (
        Unseen(np.empty(0), np.empty(0)).limits == {WHOLE: 1, PART: 0.5} and Unseen(np.full(1, 0.3), np.full(1, 0.3)).limits[WHOLE] == 0.3
    )
    part = (3, 0, 0.3, [5])
    found = audit_verdicts(evidence([0.05], [0], part), CLUSTERS, near)
    assert found["verdict"].tolist() == [WHOLE, WHOLE, *[NOTHING] * 4]  # the region of a whole copy does not count
    found = audit_verdicts(evidence([0.25], [0], part), CLUSTERS, near)
    assert found["verdict"].tolist() == [*[NOTHING] * 5, PART] and found["cells"][5] == [15]
    many = Unseen(np.full(800, 2.0), np.repeat([0.2, 2.0], [4, 796]))  # 1 % of 400 is more than one image
    assert many.limits[PART] == 1
    assert audit_verdicts(evidence([2.0], [0], part), CLUSTERS, many)["unseen_as_close"].tolist() == [0, 0, 0, 0, 0, 4]


def test_cells_are_a_lattice_of_the_image():
    assert [cells_per_side(side) for side in (64, 16, 12, 10)] == [8, 8, 4, 2]
    assert np.argwhere(copied_mask([1, 8], 16)).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [2, 0], [2, 1], [3, 0], [3, 1]]
    with pytest.raises(AfterglowError, match="15 pixels is odd"):
        cells_per_side(15)


def test_since_is_the_first_checkpoint_of_the_last_unbroken_series():
    rows = [
        [NOTHING, WHOLE, PART, NOTHING],
        [NOTHING, NOTHING, WHOLE, WHOLE],
        [WHOLE, WHOLE, WHOLE, NOTHING],
    ]
    assert since(["a", "b", "c"], [pd.Series(row) for row in rows]) == ["c", "c", "a", ""]


def test_held_out_images_are_evaluated_like_the_others_and_what_they_share_is_no_evidence():
    # the last four are held out
    rows = [(0, 0, 0, 0.2), (0, 0, 4, 0.2), (1, 1, 1, 0.1), (1, 1, 2, 0.1), (2, 1, 6, 0.7), (3, 0, 5, 0.05), (3, 0, 6, 0.05)]
    parts = pd.DataFrame(rows, columns=["region", "generation", "image", "value"])
    found = AuditMatches(np.array([0.3, 0.9]), np.array([6, 2]), parts, CELLS, COVERAGE, np.arange(8), np.arange(8.0))
    kept, unseen = heldout_evidence(found, np.arange(8), 4)
    assert set(zip(kept.parts["region"], kept.parts["image"], strict=True)) == {(0, 4), (1, 1), (1, 2), (2, 6)}
    assert len(kept.nearest) == len(kept.distance) == 4
    assert unseen.whole.tolist() == [np.inf, np.inf, 0.3, np.inf] and unseen.part.tolist() == [0.2, np.inf, 0.7, np.inf]
    assert unseen.limits == {WHOLE: 0.3, PART: 0.2} and unseen.passing(WHOLE) == (1, 4) and unseen.passing(PART) == (1, 4)
    assert audit_verdicts(kept, np.arange(4), unseen)["verdict"].tolist() == [NOTHING, PART, PART, NOTHING]


def test_of_exchangeable_images_that_resemble_each_other_no_more_are_called_copied_than_the_limit_allows():
    # regions of one to three of 264 images, 64 of them held out: no image is a copy more than any other
    rng, called, checked = np.random.default_rng(0), [], []
    for _ in range(100):
        images = [rng.choice(264, rng.integers(1, 4), replace=False) for _ in range(400)]
        regions, values = np.repeat(np.arange(400), [len(row) for row in images]), rng.uniform(size=400)
        parts = pd.DataFrame({"region": regions, "generation": 0, "image": np.concatenate(images), "value": values[regions]})
        nothing = np.full(1, np.inf), np.zeros(1, int)
        found = AuditMatches(*nothing, parts, np.ones((400, 16), bool), COVERAGE, np.zeros(264, int), np.ones(264))
        kept, unseen = heldout_evidence(found, np.arange(264), 200)
        called.append((audit_verdicts(kept, np.arange(200), unseen)["verdict"] == PART).mean())
        checked.append(np.divide(*unseen.passing(PART)))
    both, one = 1 / 65, 1 / 33  # probability that the smallest value of 65 (both folds) and of 33 images is that of the last one
    assert 0.7 * both < np.mean(called) < 1.3 * both and 0.7 * one < np.mean(checked) < 1.3 * one
