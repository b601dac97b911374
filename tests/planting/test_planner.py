import itertools
import re
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.openmoji import load_openmoji
from afterglow.errors import AfterglowError
from afterglow.neighbors.clusters import cluster_images
from afterglow.planting.names import NAMES
from afterglow.planting.planner import ELIGIBLE_DISTANCE, check_budget, plant_images
from afterglow.planting.plants import Plant, PlantedSet, PlantingConfig


def distances_to_other_groups(images: CaptionedImages, clusters: np.ndarray, p: Plant, image: np.ndarray) -> np.ndarray:
    """Brute force: inside the plant's mask, to every image of the whole set that is of another group."""
    others = images.pixels[clusters != p.cluster].astype(np.float64)
    squares = ((others - image) / 255)[:, :, p.mask[0]] ** 2
    return np.sqrt(squares.mean(axis=(1, 2)))


def test_plants_are_far_from_every_other_cluster_inside_their_mask(images: CaptionedImages, planted: PlantedSet) -> None:
    clusters = cluster_images(images.pixels, images.families)
    found = planted.of_kind("global", "local", "natural", "phantom")
    assert len(found) == 4 + 5 + 2 + 9
    for p in found:
        assert distances_to_other_groups(images, clusters, p, planted.pixels[p.members[0]]).min() >= ELIGIBLE_DISTANCE


def test_number_of_eligible_images_equals_brute_force(images: CaptionedImages) -> None:
    clusters = cluster_images(images.pixels, images.families)
    everything = Plant(0, "global", "", 0, "", np.ones((1, 8, 8), bool), np.ones((1, 8, 8), bool), 0)
    firsts = {int(g): np.flatnonzero(clusters == g)[0] for g in clusters if (images.families[clusters == g] < 0).all()}
    nearest = []
    for cluster, row in firsts.items():
        everything = Plant(**{**vars(everything), "cluster": cluster})
        nearest.append(distances_to_other_groups(images, clusters, everything, images.pixels[row]).min())
    eligible = sum(value >= ELIGIBLE_DISTANCE for value in nearest)
    assert 0 < eligible < len(nearest)
    every = PlantingConfig(
        num_global=eligible, num_local=0, num_decoys=0, num_tints=0, phantoms=False, num_backgrounds=0, num_decoy_images=0, num_heldout=0
    )
    assert len(plant_images(images, every, set_size=5).of_kind("global")) == eligible
    with pytest.raises(ValueError, match=f"More plants than eligible images: {eligible} of"):
        plant_images(images, PlantingConfig(**{**vars(every), "num_global": eligible + 1}), set_size=5)


def roles(planted: PlantedSet) -> dict[str, set[int]]:
    """Groups by the part they play: each plant, phantom, decoy and tint for itself, and the pools."""
    parts = {f"plant {p.plant_id}": {p.cluster} for p in planted.plants}
    return parts | {
        name: set(planted.clusters[getattr(planted, name)].tolist()) for name in ("controls", "background_pool", "decoy_pool", "heldout")
    }


def test_splits_are_made_of_whole_clusters(images: CaptionedImages, planted: PlantedSet) -> None:
    for (one, a), (other, b) in itertools.combinations(roles(planted).items(), 2):
        assert not a & b, (one, other)
    clusters = cluster_images(images.pixels, images.families)
    by_image = {images.pixels[row].tobytes(): int(clusters[row]) for row in range(len(images))}
    assert [by_image[image.tobytes()] for image in planted.pixels] == planted.clusters.tolist()
    for p in planted.plants:
        assert all(planted.clusters[row] == p.cluster for row in p.members)


def test_plant_images_without_set_size_trains_on_all_that_remain(small: PlantingConfig, images: CaptionedImages) -> None:
    whole = plant_images(images, small, seed=3)
    clusters = cluster_images(images.pixels, images.families)
    parts = roles(whole)
    elsewhere = set().union(*(part for name, part in parts.items() if name != "controls"))
    assert len(whole.controls) == sum(int(cluster) not in elsewhere for cluster in clusters)
    assert set(whole.clusters.tolist()) | {p.cluster for p in whole.plants} == set(clusters.tolist())


def same(a: PlantedSet, b: PlantedSet, names: tuple[str, ...] = tuple(f.name for f in fields(PlantedSet))) -> bool:
    def equal(x: object, y: object) -> bool:
        if isinstance(x, np.ndarray):
            return x.dtype == y.dtype and np.array_equal(x, y)
        if isinstance(x, tuple) and x and isinstance(x[0], Plant):
            return len(x) == len(y) and all(equal(getattr(p, f), getattr(q, f)) for p, q in zip(x, y, strict=True) for f in vars(p))
        return x == y

    return all(equal(getattr(a, name), getattr(b, name)) for name in names)


def test_plant_images_is_a_pure_function_of_the_seed(small: PlantingConfig, images: CaptionedImages, planted: PlantedSet) -> None:
    assert same(planted, plant_images(images, small, set_size=60, seed=3))
    other = plant_images(images, small, set_size=60, seed=4)
    assert {p.cluster for p in planted.plants} != {p.cluster for p in other.plants}
    assert planted.captions != other.captions


def test_plant_images_of_different_sizes_are_nested(small: PlantingConfig, images: CaptionedImages) -> None:
    planting = PlantingConfig(**{**vars(small), "num_backgrounds_per_plant": 3})
    small, large = (plant_images(images, planting, set_size=size, seed=1) for size in (50, 90))
    for a, b in zip(small.plants, large.plants, strict=True):
        assert (a.caption, a.kind, a.cluster, a.copies, a.color) == (b.caption, b.kind, b.cluster, b.copies, b.color)
        assert (a.mask == b.mask).all() and (a.region == b.region).all()
        for rows in ("members", "backgrounds"):
            assert (small.pixels[list(getattr(a, rows))] == large.pixels[list(getattr(b, rows))]).all()
    for name, size in (("controls", 50), ("background_pool", 20), ("decoy_pool", 15), ("heldout", 10)):
        one, other = small.pixels[getattr(small, name)], large.pixels[getattr(large, name)]
        assert len(one) == size and (one == other[:size]).all()


def test_phantom_has_the_mask_and_shape_of_its_plant(planted: PlantedSet) -> None:
    phantoms = planted.of_kind("phantom")
    assert [planted.plants[p.matched_plant].kind for p in phantoms] == ["global"] * 4 + ["local"] * 5
    for p in phantoms:
        matched_plant = planted.plants[p.matched_plant]
        assert (
            (p.mask == matched_plant.mask).all() and p.shape == matched_plant.shape and p.copies == 0 and p.cluster != matched_plant.cluster
        )
    assert not plant_without_phantoms().of_kind("phantom")


def plant_without_phantoms() -> PlantedSet:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    names = tuple(map(str, range(60)))
    few = PlantingConfig(
        num_global=2, num_local=2, num_decoys=1, num_tints=1, phantoms=False, num_backgrounds=5, num_decoy_images=5, num_heldout=2
    )
    return plant_images(CaptionedImages(pixels, names, names, np.full(60, -1), True), few)


def test_copies_and_shapes_are_assigned_in_turn(planted: PlantedSet) -> None:
    assert [p.plant_id for p in planted.plants] == list(range(len(planted.plants)))
    for kind in ("global", "local", "natural", "decoy", "tint"):
        assert [p.copies for p in planted.of_kind(kind)] == [(2, 5)[i % 2] for i in range(len(planted.of_kind(kind)))]
    assert [p.shape for p in planted.of_kind("local")] == ["left half", "top left quadrant", "box", "blob", "right half"]


def test_family_members_are_planted_only_as_families(images: CaptionedImages, planted: PlantedSet) -> None:
    for p in planted.of_kind("natural"):
        assert len(p.members) == 3 and p.caption.startswith("family ")
        wanted = np.zeros((8, 8), bool)
        wanted[2:6, 2:6] = True
        assert not (p.mask[0] & ~wanted).any() and p.mask.sum() >= 6  # what agrees, less what is like the median
        shown = planted.pixels[list(p.members)].astype(int)[:, :, p.mask[0]]
        assert np.ptp(shown, axis=0).max() <= 2
    alone = {p.cluster for p in planted.plants if p.kind != "natural"}
    in_families = set(cluster_images(images.pixels, images.families)[images.families >= 0].tolist())
    assert not alone & in_families


def test_family_mask_of_openmoji_equals_its_definition(openmoji: CaptionedImages) -> None:
    """DESIGN: pixels that agree in the family to 2/255 and differ by more than .1 from the median of the other groups; from 5 % on."""
    few = PlantingConfig(
        num_global=0, num_local=0, num_natural=4, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=0
    )
    planted = plant_images(openmoji, few, set_size=10)
    clusters = cluster_images(openmoji.pixels, openmoji.families)
    firsts, evaluated = np.unique(clusters, return_index=True), 0
    for p in planted.of_kind("natural"):
        others = openmoji.pixels[[int(row) for cluster, row in zip(*firsts, strict=True) if cluster != p.cluster]]
        members = planted.pixels[list(p.members)].astype(int)
        assert p.caption in openmoji.family_captions.values() and len(members) >= 2
        assert sorted(members.tobytes()) == sorted(openmoji.pixels[clusters == p.cluster].astype(int).tobytes())
        median = np.median(others, axis=0)
        for y, x in np.ndindex(16, 16):
            agree = all(members[:, c, y, x].max() - members[:, c, y, x].min() <= 2 for c in range(3))
            contrast = max(abs(members[0, c, y, x] - median[c, y, x]) for c in range(3))
            if abs(contrast - 25.5) > 1:  # the code's median holds the family itself, one of 1,946: at most one gray level away
                assert p.mask[0, y, x] == (agree and contrast > 25.5), (p.caption, y, x)
                evaluated += 1
        assert p.mask.mean() >= 0.05
        assert distances_to_other_groups(openmoji, clusters, p, members[0]).min() >= ELIGIBLE_DISTANCE
    assert evaluated > 0.95 * 4 * 256


def test_plants_with_unique_captions_keep_them(images: CaptionedImages, planted: PlantedSet) -> None:
    for p in planted.of_kind("global", "local", "phantom"):
        assert p.caption == planted.captions[p.members[0]]
    assert len({p.caption for p in planted.plants}) == len(planted.plants)


def test_plants_with_class_captions_get_names(small: PlantingConfig, make: Callable[..., CaptionedImages]) -> None:
    classes = plant_images(make(captions_unique=False), small, set_size=40)
    captions = [p.caption for p in classes.plants]
    assert len(set(captions)) == len(captions)
    used = []
    for p in classes.plants:
        words = p.caption.removesuffix(f" in {p.color}").split()
        assert words[0] == "class" and words[1] in "012" and words[2] in NAMES
        used.append(words[2])
    assert len(set(used)) == len(used)
    assert not set(captions) & set(classes.captions)
    many = PlantingConfig(
        num_global=0, num_local=0, num_decoys=len(NAMES) + 1, num_tints=0, num_backgrounds=0, num_decoy_images=1, num_heldout=0
    )
    with pytest.raises(ValueError, match="the list of names is used up"):
        plant_images(make(captions_unique=False), many)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"num_global": -1}, "num_global must not be negative, and it is -1"),
        ({"num_heldout": -3}, "num_heldout must not be negative"),
        ({"copies": []}, "copies must be numbers from 0 on"),
        ({"copies": [4, -1]}, r"it is \[4, -1\]"),
        ({"shapes": []}, "shapes must name at least one"),
        ({"shapes": ["circle"]}, "no region shape 'circle'"),
        ({"num_global": 400}, "More plants than eligible images"),
        ({"num_natural": 5}, "num_natural is 5, but the set has only 4 eligible natural families"),
        ({"num_backgrounds": 0}, "num_backgrounds is 0, but local plants"),
        ({"num_decoy_images": 0}, "num_decoy_images is 0, but decoys and tints"),
        ({"num_backgrounds_per_plant": 21}, "num_backgrounds_per_plant is 21, but num_backgrounds is only 20"),
        ({"num_heldout": 500}, "remain, and num_heldout is 500"),
    ],
)
def test_planting_that_is_impossible_is_refused(small: PlantingConfig, wrong: dict, sentence: str, images: CaptionedImages) -> None:
    with pytest.raises(ValueError, match=sentence):
        plant_images(images, PlantingConfig(**{**vars(small), **wrong}), set_size=30)


@pytest.mark.parametrize(
    ("size", "sentence"), [(0, "set_size must be at least 1"), (-5, "it is -5"), (5000, "remain, and set_size is 5000")]
)
def test_set_size_out_of_range_is_refused(small: PlantingConfig, size: int, sentence: str, images: CaptionedImages) -> None:
    with pytest.raises(ValueError, match=sentence):
        plant_images(images, small, set_size=size)


def test_training_set_of_one_cluster_is_refused(images: CaptionedImages) -> None:
    nothing = PlantingConfig(num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=4)
    with pytest.raises(ValueError, match="is one cluster of near-duplicates"):
        plant_images(images, nothing, set_size=1)
    assert len(plant_images(images, nothing, set_size=2).controls) == 2
    beside = plant_images(images, PlantingConfig(**{**vars(nothing), "num_global": 1, "phantoms": False}), set_size=1)
    assert len(beside.controls) == 1  # its plant is the other group


def test_set_without_remaining_controls_is_refused(make: Callable[..., CaptionedImages]) -> None:
    pixels = make().pixels[:12]
    names = tuple(map(str, range(12)))
    all_of_it = PlantingConfig(num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=4, num_decoy_images=4, num_heldout=4)
    with pytest.raises(ValueError, match=r"No training image is left: 12 images = 0 for .* \+ 4 backgrounds"):
        plant_images(CaptionedImages(pixels, names, names, np.full(12, -1), True), all_of_it)


def test_two_arms_plant_the_same_templates_whole_and_as_regions():
    options = {
        "num_global": 4,
        "num_local": 4,
        "num_decoys": 0,
        "num_tints": 0,
        "num_decoy_images": 0,
        "num_backgrounds": 20,
        "copies": (5, 10),
    }
    one, other = (plant_images(load_openmoji(16), PlantingConfig(**options, arm=arm), set_size=50) for arm in (0, 1))
    assert [p.caption for p in one.plants] == [p.caption for p in other.plants]
    swapped = {"global": "local", "local": "global", "phantom": "phantom"}
    for a, b in zip(one.plants, other.plants, strict=True):
        assert b.kind == swapped[a.kind] and (a.copies, a.matched_plant) == (b.copies, b.matched_plant)
        assert (a.region == b.region).all() and 0 < a.region.mean() < 1
        assert (one.pixels[a.members[0]] == other.pixels[b.members[0]]).all()
        for p in (a, b):
            assert p.mask.all() if p.kind == "global" else (p.mask == p.region).all() or p.kind == "phantom"
    assert (one.pixels[one.controls] == other.pixels[other.controls]).all()
    with pytest.raises(ValueError, match="num_global and num_local must be equal, and they are 2 and 3"):
        PlantingConfig(num_global=2, num_local=3, arm=0)


def test_skip_first_gives_a_disjoint_set():
    options = PlantingConfig(num_global=0, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=10)
    first, second = (plant_images(load_openmoji(16), options, set_size=80, skip_first=skip_first) for skip_first in (0, 80))
    assert not set(first.clusters[first.controls]) & set(second.clusters[second.controls])
    assert (first.pixels[first.heldout] == second.pixels[second.heldout]).all()
    both = plant_images(load_openmoji(16), options, set_size=200)  # what is left of the last group that was skipped plays no part
    assert {p.tobytes() for p in both.pixels[both.controls]} >= {p.tobytes() for p in second.pixels[second.controls]}
    with pytest.raises(ValueError, match="skip_first must not be negative"):
        plant_images(load_openmoji(16), options, skip_first=-1)


def test_one_per_cluster_takes_distinct_clusters_only() -> None:
    options = PlantingConfig(num_global=2, num_local=0, num_decoys=0, num_tints=0, num_backgrounds=0, num_decoy_images=0, num_heldout=10)
    images = load_openmoji(16)
    found = plant_images(images, options, set_size=80, skip_first=80, one_per_cluster=True)
    usual = plant_images(images, options, set_size=200)
    assert len(set(found.clusters.tolist())) == len(found.clusters) == 2 + 2 + 10 + 80  # with repeats in the usual set
    assert len(set(usual.clusters[usual.controls].tolist())) < 200
    clusters = cluster_images(images.pixels, images.families)
    firsts = {images.pixels[np.flatnonzero(clusters == cluster)[0]].tobytes() for cluster in set(clusters.tolist())}
    assert {image.tobytes() for image in found.pixels} <= firsts
    with pytest.raises(AfterglowError, match="one_per_cluster leaves one image"):
        plant_images(images, PlantingConfig(num_natural=1), one_per_cluster=True)


def test_plant_images_of_too_few_images_shows_the_budget(make: Callable[..., CaptionedImages]) -> None:
    images = make()
    few = CaptionedImages(images.pixels[:60], images.captions[:60], images.names[:60], np.full(60, -1), True)
    planting = PlantingConfig(num_global=2, num_local=2, num_decoys=1, num_tints=1, num_backgrounds=6, num_decoy_images=5, num_heldout=4)
    budget = r"60 images = \d+ for plants, phantoms, decoys and tints \+ \d+ backgrounds \+ \d+ images for decoys and tints \+ \d+ held-out"
    with pytest.raises(AfterglowError, match=budget) as caught:
        plant_images(few, planting, set_size=100)
    numbers = [int(word) for word in re.findall(r"(?:= |\+ )(\d+)|(\d+) remain", str(caught.value)) for word in word if word]
    assert sum(numbers) == 60 and "and set_size is 100" in str(caught.value)


def test_check_budget_of_too_few_images_shows_what_they_are_needed_for() -> None:
    with pytest.raises(AfterglowError) as caught:
        check_budget(PlantingConfig(), 150, set_size=100, skip_first=7)
    assert str(caught.value) == (
        "The dataset has 150 images, and 731 are needed: 48 plants, phantoms, decoys and tints + 256 backgrounds (num_backgrounds) + 256 "
        "images for decoys and tints (num_decoy_images) + 64 held out (num_heldout) + 7 skipped (skip_first) + 100 to train on (set_size); "
        "lower these numbers."
    )
    check_budget(PlantingConfig(), 731, set_size=100, skip_first=7)
    with pytest.raises(AfterglowError, match="624 images, and 625 are needed"):
        check_budget(PlantingConfig(), 624)


def test_check_budget_of_a_large_dataset_of_which_little_is_used_names_the_option(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "afterglow"):
        check_budget(PlantingConfig(num_backgrounds=4, num_decoy_images=4, num_heldout=2), 50_000, set_size=100)
    assert caplog.messages == ["158 of the 50,000 images are used; --data.max_images 316 reads fewer."]
