from dataclasses import replace

import numpy as np
import pytest

from afterglow.datasets.images import CaptionedImages
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig
from afterglow.planting.targets import cluster_sizes, evaluation_targets, unconditional_targets


def test_evaluation_targets_cover_plants_controls_and_held_out_captions(planted: PlantedSet) -> None:
    found = evaluation_targets(planted, num_controls=7, num_heldout=3)
    kinds = [s.kind for s in found]
    assert kinds[: len(planted.plants)] == [p.kind for p in planted.plants]
    assert kinds[len(planted.plants) :] == ["control"] * 7 + ["heldout"] * 3
    more = evaluation_targets(planted, num_controls=9, num_heldout=5)
    assert len({s.plant_id for s in more}) == len(more)
    by_caption = {s.caption: s.plant_id for s in more}
    assert all(by_caption[s.caption] == s.plant_id for s in found)  # stable, whatever number is asked for
    assert not {s.plant_id for s in more} & {s.plant_id for s in unconditional_targets(planted, 5)}
    for s in found:
        assert (s.reference is None) == (s.kind in ("decoy", "tint", "heldout"))
        if s.kind == "control":
            assert (s.reference == planted.pixels[planted.captions.index(s.caption, planted.controls[0])]).all()


def test_the_cluster_size_of_a_control_counts_its_near_duplicates_in_the_training_set(planted: PlantedSet) -> None:
    clusters = planted.clusters.copy()
    family = planted.controls[[1, 4, 5, len(planted.controls) - 1]]
    clusters[family] = clusters[family[0]]
    changed = replace(planted, clusters=clusters)
    targets = evaluation_targets(changed, num_controls=6, num_heldout=2)  # the last member of the family is no target, and counts
    first = len(planted.plants)
    for target in targets:
        row = target.plant_id - first
        wanted = sum(clusters[other] == clusters[row] for other in planted.controls) if target.kind == "control" else 1
        assert target.cluster_size == wanted
    assert [t.cluster_size for t in targets if t.plant_id - first in family] == [4, 4, 4]
    assert set(cluster_sizes(changed)) == {first + row for row in planted.controls.tolist()}


def test_background_spread_is_the_standard_deviation_outside(small: PlantingConfig, images: CaptionedImages) -> None:
    finite = plant_images(images, PlantingConfig(**{**vars(small), "num_backgrounds_per_plant": 6}), set_size=30)
    for s, p in zip(evaluation_targets(finite, num_controls=0, num_heldout=0), finite.plants, strict=True):
        if p.kind == "local":
            shown = np.stack([finite.pixels[row] for row in p.backgrounds]).astype(float)[:, :, ~p.mask[0]] / 255
            assert s.background_spread == pytest.approx(np.sqrt(shown.var(axis=0, ddof=1).mean()), rel=1e-5)
            assert (s.backgrounds[:, :, p.mask[0]] == finite.pixels[p.members[0]][:, p.mask[0]]).all()
            assert s.background_clusters == tuple(finite.clusters[row] for row in p.backgrounds) and len(set(p.backgrounds)) == 6
        elif p.kind != "natural":
            assert s.background_spread == float("inf") and s.backgrounds is None
