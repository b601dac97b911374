import itertools
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.functional.philox import Stream, random_words
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig


@pytest.fixture(scope="module")
def planted(stream_set: PlantedSet) -> PlantedSet:
    return stream_set


@pytest.fixture(scope="module")
def finite(images: CaptionedImages, stream_planting: PlantingConfig) -> PlantedSet:
    return plant_images(images, replace(stream_planting, num_backgrounds_per_plant=3), set_size=30, seed=2)


def epochs(samples: PlantedDataset, count: int) -> list[list[tuple]]:
    """Image, caption, position of the plant and kind of each sample."""
    numbers = [range(epoch * samples.epoch_length, (epoch + 1) * samples.epoch_length) for epoch in range(count)]
    keys, batches = [samples.keys(epoch) for epoch in numbers], [samples.batch(epoch) for epoch in numbers]
    return [
        [*zip(samples.images(key).numpy(), batch.caption, key[:, 0].tolist(), batch.kind, strict=True)]
        for key, batch in zip(keys, batches, strict=True)
    ]


def reference(planted: PlantedSet, seed: int, number: int) -> np.ndarray:
    """The image of one sample by the definition, without tables; seen from outside: rows whose order is drawn come from `keys`."""
    samples = PlantedDataset(planted, seed)
    epoch, position = divmod(number, samples.epoch_length)
    order = np.random.default_rng([seed, 0xE90C, epoch]).permutation(samples.epoch_length)
    which, appearance = planted.appearances[order[position]].tolist()
    if which < 0:
        return planted.pixels[appearance]
    plant = planted.plants[which]
    turn = epoch * plant.copies + appearance
    if plant.kind in ("global", "natural"):
        return planted.pixels[plant.members[turn % len(plant.members)]]
    pool = planted.background_pool if plant.kind == "local" else planted.decoy_pool
    word = random_words(seed, Stream.BACKGROUND, torch.tensor([number]), 1).item()
    other = plant.backgrounds[turn % len(plant.backgrounds)] if plant.backgrounds else pool[word * len(pool) // 2**32]
    return planted.compose(plant, 0, int(other))


def test_images_are_those_of_the_definition_on_any_device(planted: PlantedSet, finite: PlantedSet) -> None:
    for some in (planted, finite, replace(planted, pixels=planted.pixels[:, :1])):
        samples, moved = PlantedDataset(some, 3), PlantedDataset(some, 3)
        moved.to(torch.device("cpu"))  # keeps the images in a tensor, as on a GPU
        numbers = range(2 * samples.epoch_length + 5)
        expected = torch.from_numpy(np.stack([reference(some, 3, number) for number in numbers]))
        for dataset in (samples, moved):
            assert torch.equal(dataset.images(dataset.keys(numbers)), expected)


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
    length = one.epoch_length
    whole, order = one.batch(range(3 * length)), np.random.default_rng(0).permutation(3 * length).tolist()
    again = other.batch(order)
    assert torch.equal(again.image, whole.image[order]) and again.caption == tuple(whole.caption[index] for index in order)
    assert PlantedDataset(planted, 6).batch(range(20)).caption != whole.caption[:20]
    assert whole.caption[:length] != whole.caption[length : 2 * length]


def test_batch_scales_pixels_and_keeps_the_order(planted: PlantedSet) -> None:
    samples = PlantedDataset(planted, 0)
    batch = samples.batch([3, 1, 8])
    assert batch.image.dtype == torch.float32 and batch.image.min() >= -1 and batch.image.max() <= 1
    assert ((batch.image + 1) * 127.5 - samples.images(samples.keys([3, 1, 8]))).abs().max() < 1e-3
    assert batch.caption[1:2] == samples.batch([1]).caption and batch.index.tolist() == [3, 1, 8]
    moved = batch.to("meta")
    assert moved.image.is_meta and not moved.index.is_meta and moved.caption == batch.caption
