import itertools
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.planting.dataset import PlantedDataset, collate
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig


@pytest.fixture(scope="module")
def planted(stream_set: PlantedSet) -> PlantedSet:
    return stream_set


@pytest.fixture(scope="module")
def finite(images: CaptionedImages, stream_planting: PlantingConfig) -> PlantedSet:
    return plant_images(images, replace(stream_planting, num_backgrounds_per_plant=3), set_size=30, seed=2)


def epochs(samples: PlantedDataset, count: int) -> list[list[tuple]]:
    length = samples.epoch_length
    return [[samples[epoch * length + position] for position in range(length)] for epoch in range(count)]


def test_epoch_contains_controls_once_and_plants_copies_times(planted: PlantedSet) -> None:
    for epoch in epochs(PlantedDataset(planted, 0), 3):
        controls = Counter(image.tobytes() for image, _, plant_id, *_ in epoch if plant_id < 0)
        assert controls == Counter(planted.pixels[row].tobytes() for row in planted.controls)
        shown = Counter(plant_id for _, _, plant_id, *_ in epoch if plant_id >= 0)
        assert shown == {p.plant_id: p.copies for p in planted.plants if p.kind != "phantom"}


def test_samples_never_contain_phantoms_held_out_images_or_whole_templates(planted: PlantedSet) -> None:
    shown = [sample for epoch in epochs(PlantedDataset(planted, 0), 3) for sample in epoch]
    images, captions = {image.tobytes() for image, *_ in shown}, {caption for _, caption, *_ in shown}
    hidden = [planted.pixels[row] for p in planted.of_kind("phantom", "local") for row in p.members]
    hidden += [planted.pixels[row] for row in planted.heldout]
    assert not images & {pixels.tobytes() for pixels in hidden}
    assert not captions & ({p.caption for p in planted.of_kind("phantom")} | {planted.captions[row] for row in planted.heldout})
    for p in planted.of_kind("phantom"):  # nor the region of a local phantom, under any caption
        region = planted.pixels[p.members[0]][:, p.mask[0]]
        assert not any((image[:, p.mask[0]] == region).all() for image, *_ in shown)


def test_sample_fields_describe_its_image(planted: PlantedSet) -> None:
    for image, caption, plant_id, kind, *_ in epochs(PlantedDataset(planted, 0), 1)[0]:
        if plant_id < 0:
            assert kind == "control"
            row = planted.captions.index(caption)
            assert row in planted.controls and (image == planted.pixels[row]).all()
            continue
        p = planted.plants[plant_id]
        assert (caption, kind) == (p.caption, p.kind)
        if kind in ("global", "local"):
            assert (image[:, p.mask[0]] == planted.pixels[p.members[0]][:, p.mask[0]]).all()


def shown_of(planted: PlantedSet, kind: str, count: int = 4, seed: int = 0) -> dict[int, list[np.ndarray]]:
    found: dict[int, list[np.ndarray]] = {p.plant_id: [] for p in planted.of_kind(kind)}
    for sample in itertools.chain(*epochs(PlantedDataset(planted, seed), count)):
        if sample[3] == kind:
            found[sample[2]].append(sample[0])
    return found


def test_fresh_backgrounds_differ_between_appearances(planted: PlantedSet) -> None:
    background_pool = {planted.pixels[row].tobytes() for row in planted.background_pool}
    for number, images in shown_of(planted, "local").items():
        outside = ~planted.plants[number].mask[0]
        different = {image[:, outside].tobytes() for image in images}
        assert len(different) >= 0.6 * len(images)  # drawn from 40: a few return
        known = {planted.pixels[row][:, outside].tobytes() for row in planted.background_pool}
        assert different <= known and len(background_pool) == 40


def test_finite_backgrounds_appear_in_turn(finite: PlantedSet) -> None:
    for number, images in shown_of(finite, "local", count=6).items():
        p = finite.plants[number]
        wanted = [finite.compose(p, 0, row).tobytes() for row in p.backgrounds]
        counts = Counter(image.tobytes() for image in images)
        assert set(counts) == set(wanted) and len(wanted) == 3
        assert max(counts.values()) - min(counts.values()) <= 1


def test_family_members_appear_in_turn(planted: PlantedSet) -> None:
    for number, images in shown_of(planted, "natural", count=6).items():
        counts = Counter(image.tobytes() for image in images)
        assert set(counts) == {planted.pixels[row].tobytes() for row in planted.plants[number].members}
        assert max(counts.values()) - min(counts.values()) <= 1


def test_decoys_show_different_images_and_tints_tint_them(planted: PlantedSet) -> None:
    decoy_pool = {planted.pixels[row].tobytes() for row in planted.decoy_pool}
    for images in shown_of(planted, "decoy").values():
        assert {image.tobytes() for image in images} <= decoy_pool
        assert len({image.tobytes() for image in images}) >= 0.6 * len(images)
    for number, images in shown_of(planted, "tint").items():
        p = planted.plants[number]
        outside = {planted.pixels[row][:, ~p.region[0]].tobytes(): row for row in planted.decoy_pool.tolist()}
        for image in images:
            row = outside[image[:, ~p.region[0]].tobytes()]
            assert (image != planted.pixels[row]).any()
        assert len({image.tobytes() for image in images}) >= 0.6 * len(images)


def test_sample_is_a_pure_function_of_seed_and_index(planted: PlantedSet) -> None:
    one, other = PlantedDataset(planted, 5), pickle.loads(pickle.dumps(PlantedDataset(planted, 5)))  # as a worker process has it
    wanted = [one[index] for index in range(3 * one.epoch_length)]
    for index in np.random.default_rng(0).permutation(len(wanted)).tolist():
        assert all(np.array_equal(a, b) for a, b in zip(wanted[index], other[index], strict=True))
    third = PlantedDataset(planted, 6)
    assert [third[index][1] for index in range(20)] != [sample[1] for sample in wanted[:20]]
    first, second = wanted[: one.epoch_length], wanted[one.epoch_length : 2 * one.epoch_length]
    assert [sample[1] for sample in first] != [sample[1] for sample in second]


def test_collate_scales_pixels_and_keeps_the_order(planted: PlantedSet) -> None:
    samples = PlantedDataset(planted, 0)
    rows = [samples[index] for index in range(9)]
    batch = collate(rows)
    assert batch.image.dtype == torch.float32 and batch.image.min() >= -1 and batch.image.max() <= 1
    assert ((batch.image + 1) * 127.5 - torch.from_numpy(np.stack([row[0] for row in rows]))).abs().max() < 1e-3
    assert batch.caption == tuple(row[1] for row in rows) and batch.kind == tuple(row[3] for row in rows)
    assert batch.index.tolist() == list(range(9))
    moved = batch.to("meta")
    assert moved.image.is_meta and not moved.index.is_meta and moved.caption == batch.caption
