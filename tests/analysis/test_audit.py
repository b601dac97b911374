import numpy as np
import pandas as pd
import pytest

from afterglow.analysis.audit import NO_COPY as NOTHING
from afterglow.analysis.audit import PART_COPY as PART
from afterglow.analysis.audit import WHOLE_COPY as WHOLE
from afterglow.analysis.audit import Evidence, Unseen, cells_per_side, copied_mask, heldout_evidence, judge_images, since
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
    return Evidence(np.array(whole), np.array(cluster), frame, CELLS, COVERAGE, np.full(6, 3), distance)


def test_each_image_gets_its_verdict_and_its_evidence():
    never = Unseen(np.linspace(1.1, 3, 40), np.linspace(1.1, 3, 40))
    found = judge_images(
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


def test_limits_come_from_every_second_unseen_image_and_the_others_judge_them():
    near = Unseen(np.array([0.2, 0.1, 2.0, 2.0]), np.array([2.0, 0.4, 2.0, 2.0]))
    assert near.limits == {WHOLE: 0.2, PART: 0.5} and near.passing(WHOLE) == (1, 2) and near.passing(PART) == (1, 2)
    assert Unseen(np.full(32, 2.0), np.full(32, 2.0)).limits[PART] == 1 and Unseen(np.full(30, 2.0), np.full(30, 2.0)).limits[PART] == 0.5
    part = (3, 0, 0.45, [5])
    found = judge_images(evidence([0.15], [0], part), CLUSTERS, near)
    assert found["verdict"].tolist() == [WHOLE, WHOLE, *[NOTHING] * 4]  # the region of a whole copy does not count
    assert found["unseen_as_close"].tolist()[:2] == [1, 1]
    found = judge_images(evidence([0.25], [0], part), CLUSTERS, near)
    assert found["verdict"].tolist() == [*[NOTHING] * 5, PART] and found["cells"][5] == [15] and found["unseen_as_close"][5] == 1


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


def test_held_out_images_are_judged_like_the_others_and_what_they_share_is_no_evidence():
    # the last four are held out; 4 and 6 choose the limits, 5 and 7 judge them
    rows = [(0, 0, 0, 0.2), (0, 0, 4, 0.2), (1, 1, 1, 0.1), (1, 1, 7, 0.1), (2, 1, 6, 0.7), (2, 0, 6, 0.8)]
    parts = pd.DataFrame(rows, columns=["region", "generation", "image", "value"])
    found = Evidence(np.array([0.3, 0.9]), np.array([6, 2]), parts, CELLS, COVERAGE, np.arange(8), np.arange(8.0))
    kept, unseen = heldout_evidence(found, np.arange(8), 4)
    assert set(kept.parts["region"]) == {1, 2} and len(kept.nearest) == len(kept.distance) == 4
    assert unseen.whole.tolist() == [np.inf, np.inf, 0.3, np.inf] and unseen.part.tolist() == [np.inf, np.inf, 0.7, 0.1]
    assert unseen.limits == {WHOLE: 0.3, PART: 0.5} and unseen.passing(WHOLE) == (0, 2) and unseen.passing(PART) == (1, 2)
    table = judge_images(kept, np.arange(4), unseen)
    assert table["verdict"].tolist() == [NOTHING, PART, NOTHING, NOTHING] and table["unseen_as_close"].tolist() == [0, 1, 0, 0]
