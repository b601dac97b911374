from collections.abc import Callable

import numpy as np

from afterglow.datasets.images import CaptionedImages
from afterglow.kinds import TRAINED
from afterglow.planting.names import COLOR_NAMES
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig


def test_masks_are_the_planted_pixels_and_regions_where_maps_are_evaluated(planted: PlantedSet) -> None:
    for p in planted.plants:
        assert p.mask.shape == p.region.shape == (1, 8, 8) and p.mask.dtype == p.region.dtype == bool
        if p.kind in ("decoy", "tint"):
            assert not p.mask.any() and 0 < p.region.mean() <= 0.5 and not p.members
        else:
            assert (p.mask == p.region).all() and p.mask.any()
            assert p.mask.all() == (p.shape == "whole")


def test_compose_local_plant_is_template_inside_and_background_outside(planted: PlantedSet) -> None:
    for p in planted.of_kind("local"):
        template = planted.pixels[p.members[0]]
        for fill in planted.background_pool[:3].tolist():
            shown = planted.compose(p, 0, fill)
            for c, y, x in np.ndindex(3, 8, 8):
                assert shown[c, y, x] == (template if p.mask[0, y, x] else planted.pixels[fill])[c, y, x]


def test_compose_tint_mixes_its_region_with_half_of_the_color(planted: PlantedSet) -> None:
    for p in planted.of_kind("tint"):
        row = int(planted.decoy_pool[4])
        shown, before = planted.compose(p, 0, row).astype(float), planted.pixels[row].astype(float)
        assert (shown == before)[:, ~p.region[0]].all()
        color = np.array(COLOR_NAMES[p.color], float)[:, None]
        assert np.abs(shown[:, p.region[0]] - (before[:, p.region[0]] + color) / 2).max() <= 0.5
        assert p.caption.endswith(f" in {p.color}")


def test_gray_images_are_planted_and_tinted(small: PlantingConfig, make: Callable[..., CaptionedImages]) -> None:
    gray = plant_images(make(channels=1), small, set_size=40)
    assert gray.pixels.shape[1:] == (1, 8, 8)
    p = gray.of_kind("tint")[0]
    shown, before = gray.compose(p, 0, int(gray.decoy_pool[0])).astype(float), gray.pixels[gray.decoy_pool[0]].astype(float)
    paint = sum(COLOR_NAMES[p.color]) / 3
    assert (shown == before)[~p.region].all()
    assert np.abs(shown[p.region] - (before[p.region] + paint) / 2).max() <= 0.5


def test_gallery_contains_what_a_model_is_trained_on(planted: PlantedSet) -> None:
    gallery = planted.gallery()
    shown = [row for p in planted.of_kind("global", "natural") for row in p.members]
    shown += [*planted.controls, *planted.background_pool, *planted.decoy_pool]
    assert sorted(p.tobytes() for p in gallery.pixels) == sorted(planted.pixels[row].tobytes() for row in shown)
    hidden = {p.cluster for p in planted.of_kind("phantom", "local")} | set(planted.clusters[planted.heldout].tolist())
    assert not hidden & set(gallery.clusters.tolist())
    assert [t.cluster for t in gallery.templates] == [p.cluster for p in planted.of_kind("local")]


def test_plant_without_copies_is_never_shown(small: PlantingConfig, images: CaptionedImages) -> None:
    none = plant_images(images, PlantingConfig(**{**vars(small), "copies": [0]}), set_size=30)
    assert (none.appearances[:, 0] == -1).all() and len(none.appearances) == 30
    gallery = none.gallery()
    assert not gallery.templates and not {p.cluster for p in none.plants} & set(gallery.clusters.tolist())


def test_planting_config_accepts_a_single_value_for_a_list(small: PlantingConfig, images: CaptionedImages) -> None:
    single = PlantingConfig(**{**vars(small), "copies": 7, "shapes": "box"})
    assert single.list_of_copies == (7,) and single.list_of_shapes == ("box",)
    planted = plant_images(images, single, set_size=20)
    assert {plant.copies for plant in planted.of_kind(*TRAINED)} == {7} and {p.shape for p in planted.of_kind("local")} == {"box"}
