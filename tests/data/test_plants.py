from collections.abc import Callable

import numpy as np

from afterglow.data.dealer import plant
from afterglow.data.pictures import Pictures
from afterglow.data.plants import PlantedSet, Planting
from afterglow.data.words import COLOURS


def test_masks_are_the_planted_pixels_and_regions_where_maps_are_judged(planted: PlantedSet) -> None:
    for p in planted.plants:
        assert p.mask.shape == p.region.shape == (1, 8, 8) and p.mask.dtype == p.region.dtype == bool
        if p.kind in ("decoy", "tint"):
            assert not p.mask.any() and 0 < p.region.mean() <= 0.5 and not p.members
        else:
            assert (p.mask == p.region).all() and p.mask.any()
            assert p.mask.all() == (p.shape == "whole")


def test_a_local_plant_is_its_template_inside_and_its_fill_outside(planted: PlantedSet) -> None:
    for p in planted.of_kind("local"):
        template = planted.pixels[p.members[0]]
        for fill in planted.fills[:3].tolist():
            shown = planted.compose(p, 0, fill)
            for c, y, x in np.ndindex(3, 8, 8):
                assert shown[c, y, x] == (template if p.mask[0, y, x] else planted.pixels[fill])[c, y, x]


def test_a_tint_changes_its_region_only_and_by_half(planted: PlantedSet) -> None:
    for p in planted.of_kind("tint"):
        row = int(planted.moving[4])
        shown, before = planted.compose(p, 0, row).astype(float), planted.pixels[row].astype(float)
        assert (shown == before)[:, ~p.region[0]].all()
        colour = np.array(COLOURS[p.colour], float)[:, None]
        assert np.abs(shown[:, p.region[0]] - (before[:, p.region[0]] + colour) / 2).max() <= 0.5
        assert p.caption.endswith(f" in {p.colour}")


def test_a_grey_set_is_planted_and_tinted_too(small: Planting, make: Callable[..., Pictures]) -> None:
    grey = plant(make(channels=1), small, set_size=40)
    assert grey.pixels.shape[1:] == (1, 8, 8)
    p = grey.of_kind("tint")[0]
    shown, before = grey.compose(p, 0, int(grey.moving[0])).astype(float), grey.pixels[grey.moving[0]].astype(float)
    paint = sum(COLOURS[p.colour]) / 3
    assert (shown == before)[~p.region].all()
    assert np.abs(shown[p.region] - (before[p.region] + paint) / 2).max() <= 0.5


def test_the_gallery_is_what_a_model_is_trained_on(planted: PlantedSet) -> None:
    gallery = planted.gallery()
    shown = [row for p in planted.of_kind("global", "natural") for row in p.members]
    shown += [*planted.controls, *planted.fills, *planted.moving]
    assert sorted(p.tobytes() for p in gallery.pixels) == sorted(planted.pixels[row].tobytes() for row in shown)
    hidden = {p.group for p in planted.of_kind("phantom", "local")} | set(planted.groups[planted.heldout].tolist())
    assert not hidden & set(gallery.groups.tolist())
    assert [t.group for t in gallery.templates] == [p.group for p in planted.of_kind("local")]


def test_no_copies_means_never_shown(small: Planting, pictures: Pictures) -> None:
    none = plant(pictures, Planting(**{**vars(small), "copies": [0]}), set_size=30)
    assert (none.appearances[:, 0] == -1).all() and len(none.appearances) == 30
    gallery = none.gallery()
    assert not gallery.templates and not {p.group for p in none.plants} & set(gallery.groups.tolist())
