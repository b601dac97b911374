import numpy as np
import pandas as pd

from afterglow.analysis.audit import NO_COPY as NOTHING
from afterglow.analysis.audit import PART_COPY as PART
from afterglow.analysis.audit import WHOLE_COPY as WHOLE
from afterglow.analysis.audit import Evidence, Unseen, heldout_evidence, judge_images, since

# Six images: 0 and 1 are near-duplicates, 2 and 3 share tile 0, 4 and 5 are alone. Two tiles.
CLUSTERS = np.array([0, 0, 1, 2, 3, 4])
TILES = np.array([[0, 0, 1, 1, 3, 4], [10, 10, 11, 12, 13, 14]])


def evidence(whole, cluster, tiles, tile_cluster):
    return Evidence(
        np.array(whole),
        np.array(cluster),
        np.array(tiles),
        np.array(tile_cluster),
        np.full(6, 3),
        np.linspace(0.1, 0.6, 6, dtype=np.float32),
    )


def test_each_image_gets_its_verdict_and_its_evidence():
    never = Unseen(np.linspace(1.1, 3, 40), np.linspace(1.1, 3, 40))
    found = judge_images(
        evidence(
            [0.5, 0.3, 2.0, 2.0],  # two copies of the near-duplicates, a copied region, nothing
            [0, 0, 3, 1],
            [[2.0, 2.0], [0.1, 0.2], [0.4, 2.0], [2.0, 2.0]],  # tiles of a whole copy are no copies of a part
            [[3, 10], [4, 14], [1, 10], [0, 10]],
        ),
        CLUSTERS,
        TILES,
        never,
    )
    assert found["verdict"].tolist() == [WHOLE, WHOLE, PART, PART, NOTHING, NOTHING]
    assert found["generations"].tolist() == [2, 2, 1, 1, 0, 0] and found["generation"].tolist() == [1, 1, 2, 2, 3, 3]
    assert found["calibrated_l2"].tolist()[:4] == [0.3, 0.3, 0.4, 0.4] and found["calibrated_l2"][4:].isna().all()
    assert found["tiles"].tolist() == [[], [], [0], [0], [], []] and found["shared_with"].tolist() == [1, 1, 1, 1, 0, 0]
    assert found["duplicates"].tolist() == [1, 1, 0, 0, 0, 0] and (found["unseen_as_close"] == 0).all()
    assert np.allclose(found["distance"], np.linspace(0.1, 0.6, 6))


def test_limits_come_from_every_second_unseen_image_and_the_others_judge_them():
    near = Unseen(np.array([0.2, 0.1, 2.0, 2.0]), np.array([2.0, 0.5, 2.0, 2.0]))
    assert near.limits == {WHOLE: 0.2, PART: 1.0} and near.passing(WHOLE) == (1, 2) and near.passing(PART) == (1, 2)
    found = judge_images(evidence([0.15], [0], [[9.0, 0.6]], [[3, 14]]), CLUSTERS, TILES, near)
    assert found["verdict"].tolist() == [WHOLE, WHOLE, *[NOTHING] * 4]  # the tile of a whole copy does not count
    assert found["unseen_as_close"].tolist()[:2] == [1, 1]
    found = judge_images(evidence([0.25], [0], [[9.0, 0.6]], [[3, 14]]), CLUSTERS, TILES, near)
    assert found["verdict"].tolist() == [*[NOTHING] * 5, PART] and found["tiles"][5] == [1] and found["unseen_as_close"][5] == 1


def test_since_is_the_first_checkpoint_of_the_last_unbroken_series():
    rows = [
        [NOTHING, WHOLE, PART, NOTHING],
        [NOTHING, NOTHING, WHOLE, WHOLE],
        [WHOLE, WHOLE, WHOLE, NOTHING],
    ]
    assert since(["a", "b", "c"], [pd.Series(row) for row in rows]) == ["c", "c", "a", ""]


def test_held_out_images_are_judged_like_the_others_and_what_they_share_is_no_evidence():
    clusters, tiles = np.arange(8), np.array([[0, 1, 2, 3, 0, 5, 6, 1]])  # the last four are held out: 4 and 7 share a tile with 0 and 1
    found = Evidence(np.array([0.3, 0.9]), np.array([6, 2]), np.array([[0.2], [0.1]]), np.array([[0], [1]]), np.arange(8), np.arange(8.0))
    kept, unseen = heldout_evidence(found, clusters, tiles, 4)
    assert kept.tiles[:, 0].tolist() == [np.inf, 0.1] and len(kept.nearest) == len(kept.distance) == 4  # 4 chooses, 7 judges
    assert unseen.whole.tolist() == [np.inf, np.inf, 0.3, np.inf] and unseen.tile.tolist() == [np.inf, np.inf, np.inf, 0.1]
    assert unseen.limits == {WHOLE: 0.3, PART: 1} and unseen.passing(WHOLE) == (0, 2) and unseen.passing(PART) == (1, 2)
    table = judge_images(kept, clusters[:4], tiles[:, :4], unseen)
    assert table["verdict"].tolist() == [NOTHING, PART, NOTHING, NOTHING] and table["unseen_as_close"].tolist() == [0, 1, 0, 0]
