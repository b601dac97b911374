import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.openmoji import load_openmoji
from afterglow.evaluation.ground_truth import attach_ground_truth, match_to_plants
from afterglow.generations import Generations
from afterglow.measures.memorized import calibrated_l2, memorized, nn_ratio, outside_diversity
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.planting.targets import evaluation_targets, unconditional_targets

SIDE = 8


def structured_images(count=150, seed=0):
    """Four by four patches of random colors: unlike each other everywhere; a few families and a few exact twins."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, size=(count, 3, 4, 4), dtype=np.uint8).repeat(2, -1).repeat(2, -2)
    pixels[141] = pixels[140]  # twins: one group
    families = np.full(count, -1)
    families[145:149] = 0
    pixels[145:149, :, :4] = pixels[145, :, :4]  # a family that agrees in its upper half
    captions = tuple(f"image {number}" for number in range(count))
    return CaptionedImages(pixels, captions, captions, families, True, {0: "a family"})


def planted_set(backgrounds=3):
    planting = PlantingConfig(
        num_global=2,
        num_local=4,
        num_natural=1,
        num_decoys=2,
        num_tints=2,
        copies=(4,),
        num_backgrounds_per_plant=backgrounds,
        num_backgrounds=12,
        num_decoy_images=10,
        num_heldout=5,
    )
    return plant_images(structured_images(), planting, seed=1)


@pytest.fixture(scope="module")
def planted():
    return planted_set()


def training_images(planted):
    """[(group, image, mask)]: everything that is trained on, gathered from the plants and the splits one by one."""
    everything = np.ones((SIDE, SIDE), dtype=bool)
    found = []
    for p in planted.plants:
        if p.kind in ("global", "natural"):
            found += [(p.cluster, planted.pixels[row], everything) for row in p.members]
        if p.kind == "local":
            found.append((p.cluster, planted.pixels[p.members[0]], p.mask[0]))
    for rows in (planted.controls, planted.background_pool, planted.decoy_pool):
        found += [(int(planted.clusters[row]), planted.pixels[row], everything) for row in rows]
    return found


def slow_distance(a, b, mask):
    difference = (a.astype(float) - b.astype(float))[:, mask] / 255
    return math.sqrt((difference**2).mean())


def slow_neighbors(planted, image, mask, exclude, templates_from=0.5):
    """[(distance, group)] of the 50 nearest groups; a template takes part where at least half of the mask overlaps it."""
    best = {}
    for cluster, other, shown in training_images(planted):
        overlap = mask & shown
        if cluster not in exclude and overlap.sum() >= templates_from * mask.sum():
            best[cluster] = min(best.get(cluster, math.inf), slow_distance(image, other, overlap))
    return sorted((value, cluster) for cluster, value in best.items())[:50]


def make_generations(asked, seed=0, near=None):
    """Random images, or near the images given."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, size=(len(asked), 3, SIDE, SIDE), dtype=np.uint8)
    if near is not None:
        images = np.clip(near.astype(int) + generator.integers(-9, 10, size=images.shape), 0, 255).astype(np.uint8)
    return Generations(
        images=torch.from_numpy(images),
        caption=tuple(s.caption for s in asked),
        seed=torch.arange(len(asked)),
        timesteps=torch.tensor([9, 4]),
    )


@pytest.fixture(scope="module")
def asked(planted):
    """Two generations of every subject, in turns, so that rows have to be put back in order."""
    return evaluation_targets(planted, num_controls=6, num_heldout=3) * 2


@pytest.fixture(scope="module")
def annotated(planted, asked):
    return attach_ground_truth(make_generations(asked), asked, planted.gallery())


def test_every_kind_is_there(asked):
    assert {s.kind for s in asked} == {"global", "local", "natural", "phantom", "decoy", "tint", "control", "heldout"}


def test_each_row_has_the_truth_of_its_own_target(planted, asked, annotated):
    untouched = make_generations(asked)
    assert torch.equal(annotated.images, untouched.images) and torch.equal(annotated.seed, untouched.seed)
    assert annotated.caption == untouched.caption == tuple(s.caption for s in asked)
    assert annotated.kind == tuple(s.kind for s in asked) and annotated.shape == tuple(s.shape for s in asked)
    assert annotated.plant_id.tolist() == [s.plant_id for s in asked]
    plants = {p.plant_id: p for p in planted.plants}
    for row, number in enumerate(annotated.plant_id.tolist()):
        mask, region = annotated.eval_mask[row].numpy(), annotated.region[row].numpy()
        if number not in plants:
            assert mask.all() and region.all()
            continue
        p = plants[number]
        np.testing.assert_array_equal(region, p.region)
        np.testing.assert_array_equal(mask, p.mask if p.mask.any() else np.ones_like(p.mask))  # decoys and tints: over the whole
        if p.members:
            np.testing.assert_array_equal(annotated.references[row], planted.pixels[p.members[0]])


def test_attach_ground_truth_neighbors_equal_those_of_a_slow_search(planted, asked, annotated):
    for row, subject in enumerate(asked):
        image, reference = annotated.images[row].numpy(), annotated.references[row].numpy()
        own = int(annotated.neighbors.clusters[row, 0])
        if subject.reference is not None:
            assert own == subject.cluster
        neighbors, mask = annotated.neighbors, annotated.eval_mask[row, 0].numpy()
        expected = slow_neighbors(planted, image, mask, {own})
        assert neighbors.distances[row, 0].item() == pytest.approx(slow_distance(image, reference, mask), rel=1e-4)
        np.testing.assert_allclose(neighbors.distances[row, 1:], [value for value, _ in expected], rtol=1e-4)
        assert neighbors.clusters[row, 1:].tolist() == [cluster for _, cluster in expected]


def test_the_measures_are_those_of_the_slow_search(planted, asked, annotated):
    calibrated, ratio = calibrated_l2(annotated), nn_ratio(annotated)
    for row in range(len(asked)):
        image, mask = annotated.images[row].numpy(), annotated.eval_mask[row, 0].numpy()
        others = [value for value, _ in slow_neighbors(planted, image, mask, {int(annotated.neighbors.clusters[row, 0])})]
        own = slow_distance(image, annotated.references[row].numpy(), mask)
        assert len(others) == 50
        assert calibrated[row].item() == pytest.approx(own / (0.5 * np.mean(others)), rel=1e-4)
        assert ratio[row].item() == pytest.approx(own / others[0], rel=1e-4)


def test_own_group_phantoms_and_heldout_images_are_no_neighbors(planted, annotated):
    unseen = {p.cluster for p in planted.of_kind("phantom")} | set(planted.clusters[planted.heldout].tolist())
    for row in range(len(annotated)):
        others = annotated.neighbors.clusters[row, 1:].tolist()
        assert len(set(others)) == len(others) == 50
        assert int(annotated.neighbors.clusters[row, 0]) not in others and not unseen & set(others)


def test_templates_take_part_where_half_of_the_mask_overlaps_them(planted):
    """Copies of one local plant's template, evaluated as another's: near only where enough of it is seen."""
    entered = []
    for evaluated in planted.of_kind("local", "global"):
        for other in planted.of_kind("local"):
            if other is evaluated:
                continue
            (subject,) = [s for s in evaluation_targets(planted) if s.plant_id == evaluated.plant_id]
            copy = planted.compose(other, 0, int(planted.controls[0]))[None]
            found = attach_ground_truth(make_generations([subject], near=copy), [subject], planted.gallery())
            overlap = (evaluated.mask & other.mask).sum() / evaluated.mask.sum()
            entered.append(overlap >= 0.5)
            assert (other.cluster in found.neighbors.clusters[0, 1:].tolist()) is bool(overlap >= 0.5), (evaluated.shape, other.shape)
            if overlap >= 0.5:
                assert found.neighbors.clusters[0, 1] == other.cluster and found.neighbors.distances[0, 1] < 0.03
    assert any(entered) and not all(entered)


def test_what_has_no_image_of_its_own_is_evaluated_by_the_nearest_training_image(planted, asked, annotated):
    everything = np.ones((SIDE, SIDE), dtype=bool)
    whole = [(cluster, other) for cluster, other, shown in training_images(planted) if shown.all()]
    without = [row for row, subject in enumerate(asked) if subject.kind in ("decoy", "tint", "heldout")]
    assert len(without) == 14
    for row in without:
        image = annotated.images[row].numpy()
        cluster, nearest = min(whole, key=lambda item: slow_distance(image, item[1], everything))
        np.testing.assert_array_equal(annotated.references[row], nearest)
        assert annotated.neighbors.clusters[row, 0] == cluster
        assert annotated.eval_mask[row].all()


def test_copies_are_memorized_and_unrelated_images_are_not(planted, asked, annotated):
    fill = int(planted.controls[-1])
    with_reference = [s for s in asked if s.reference is not None]
    near = np.stack([np.where(s.mask, s.reference, planted.pixels[fill]) for s in with_reference])
    copied = attach_ground_truth(make_generations(with_reference, near=near), with_reference, planted.gallery())
    assert memorized(copied).tolist() == [1.0] * len(with_reference)
    assert memorized(annotated).sum() == 0
    # a decoy that shows a training image is an exact copy of it, too; held out images are not of the training set
    decoys = [s for s in asked if s.kind == "decoy"]
    shown = attach_ground_truth(make_generations(decoys, near=planted.pixels[planted.decoy_pool[: len(decoys)]]), decoys, planted.gallery())
    assert memorized(shown).tolist() == [1.0] * len(decoys)
    heldout = [s for s in asked if s.kind == "heldout"]
    original = attach_ground_truth(
        make_generations(heldout, near=planted.pixels[planted.heldout[:3]].repeat(2, 0)), heldout, planted.gallery()
    )
    assert memorized(original).sum() == 0


def test_controls_are_evaluated_in_the_mask_that_is_given(planted, asked):
    controls = [s for s in asked if s.kind == "control"]
    mask = planted.of_kind("local")[1].mask
    controls = [replace(control, mask=mask, cluster_size=number) for number, control in enumerate(controls, start=1)]
    found = attach_ground_truth(make_generations(controls), controls, planted.gallery())
    assert found.extras["cluster_size"].tolist() == list(range(1, len(controls) + 1))
    for row, subject in enumerate(controls):
        image = found.images[row].numpy()
        np.testing.assert_array_equal(found.eval_mask[row], mask)
        expected = slow_neighbors(planted, image, mask[0], {subject.cluster})
        np.testing.assert_allclose(found.neighbors.distances[row, 1:], [value for value, _ in expected], rtol=1e-4)
        assert found.neighbors.distances[row, 0].item() == pytest.approx(slow_distance(image, subject.reference, mask[0]), rel=1e-4)


def variants_by_hand(planted, p):
    rows = p.members if p.kind == "natural" else p.backgrounds
    if p.kind == "natural":
        return [planted.pixels[row] for row in rows]
    return [np.where(p.mask, planted.pixels[p.members[0]], planted.pixels[row]) for row in rows]


def test_distance_to_the_nearest_variant_outside_the_mask(planted, asked, annotated):
    plants = {p.plant_id: p for p in planted.of_kind("local", "natural")}
    assert len(plants) == 5
    for row, subject in enumerate(asked):
        if subject.plant_id not in plants:
            assert annotated.extras["background_distance"][row] == math.inf
            continue
        p, image = plants[subject.plant_id], annotated.images[row].numpy()
        outside, shown = ~p.mask[0], variants_by_hand(planted, plants[subject.plant_id])
        nearest = min(slow_distance(image, variant, outside) for variant in shown)
        background_pool = {int(planted.clusters[fill]) for fill in p.backgrounds}
        others = slow_neighbors(planted, image, outside, {p.cluster} | background_pool)
        expected = nearest / (0.5 * np.mean([value for value, _ in others]))
        assert annotated.extras["background_distance"][row].item() == pytest.approx(expected, rel=1e-4)
        deviations = np.stack(shown).astype(float)[:, :, outside].std(axis=0, ddof=1) / 255
        assert annotated.extras["background_spread"][row].item() == pytest.approx(math.sqrt((deviations**2).mean()), rel=1e-4)


def test_a_copy_of_one_variant_is_near_it_and_fresh_backgrounds_have_none(planted):
    local = planted.of_kind("local")[0]
    (subject,) = [s for s in evaluation_targets(planted) if s.plant_id == local.plant_id]
    one = planted.compose(local, 0, local.backgrounds[1])
    both = np.stack([one, planted.compose(local, 0, int(planted.controls[0]))])
    found = attach_ground_truth(make_generations([subject] * 2, near=both), [subject] * 2, planted.gallery())
    assert found.extras["background_distance"][0] < 0.5 and found.extras["background_distance"][1] > 1
    fresh = planted_set(backgrounds=0)
    local = fresh.of_kind("local")[0]
    (subject,) = [s for s in evaluation_targets(fresh) if s.plant_id == local.plant_id]
    found = attach_ground_truth(
        make_generations([subject] * 4, near=np.stack([fresh.compose(local, 0, fill) for fill in fresh.background_pool[:4]])),
        [subject] * 4,
        fresh.gallery(),
    )
    assert (found.extras["background_distance"] == math.inf).all()
    background_pool = fresh.pixels[fresh.background_pool].astype(float)[:, :, ~local.mask[0]] / 255
    assert found.extras["background_spread"][0].item() == pytest.approx(
        background_pool.std(axis=0, ddof=1).mean(), rel=0.1
    )  # 64 draws of 12 fills
    assert outside_diversity(found) == pytest.approx(1, abs=0.35)  # generated like its training images


def test_generations_without_a_caption_are_each_evaluated_by_their_own_nearest(planted):
    asked = unconditional_targets(planted, 5)
    near = planted.pixels[planted.controls[:5]]
    found = attach_ground_truth(make_generations(asked, near=near), asked, planted.gallery())
    assert found.kind == ("unprompted",) * 5 and len(set(found.plant_id.tolist())) == 5
    np.testing.assert_array_equal(found.references, near)
    assert found.neighbors.clusters[:, 0].tolist() == planted.clusters[planted.controls[:5]].tolist()
    assert memorized(found).tolist() == [1.0] * 5


def test_a_set_with_fewer_than_50_other_groups_uses_all_of_them():
    planting = PlantingConfig(
        num_global=2, num_local=2, num_decoys=1, num_tints=0, copies=(4,), num_backgrounds=6, num_decoy_images=6, num_heldout=2
    )
    small = plant_images(structured_images(), planting, set_size=9, seed=1)
    asked = evaluation_targets(small, num_controls=2, num_heldout=1)
    found = attach_ground_truth(make_generations(asked), asked, small.gallery())
    calibrated, counts = calibrated_l2(found), set()
    for row in range(len(asked)):
        image, mask = found.images[row].numpy(), found.eval_mask[row, 0].numpy()
        others = slow_neighbors(small, image, mask, {int(found.neighbors.clusters[row, 0])})
        counts.add(len(others))
        assert found.neighbors.clusters[row, 1:].tolist() == [cluster for _, cluster in others] + [-1] * (50 - len(others))
        own = slow_distance(image, found.references[row].numpy(), mask)
        assert calibrated[row].item() == pytest.approx(own / (0.5 * np.mean([value for value, _ in others])), rel=1e-4)
    assert max(counts) < 50 and len(counts) > 1


def test_annotated_generations_can_be_written(planted, asked, annotated, tmp_path):
    only = [row for row, subject in enumerate(asked) if subject.kind == "heldout"]
    for name, part in (
        ("all", annotated),
        ("one", attach_ground_truth(make_generations([asked[only[0]]]), [asked[only[0]]], planted.gallery())),
    ):
        part.save(tmp_path / name)
        back = Generations.load(tmp_path / name)
        assert torch.equal(back.neighbors.distances, part.neighbors.distances) and back.kind == part.kind


@pytest.fixture(scope="module")
def pool_set():
    nothing = {"num_decoys": 0, "num_tints": 0, "num_decoy_images": 0}
    return plant_images(
        load_openmoji(16), PlantingConfig(num_global=3, num_local=4, copies=(4,), num_backgrounds=40, **nothing), set_size=200
    )


def build_request(pool_set):
    return evaluation_targets(pool_set, num_controls=0, num_heldout=0)


def copies_of(pool_set):
    """A copy of every plant (of a region with any fill), and as many unseen images."""
    plants = pool_set.of_kind("global", "local", "phantom")
    copies = [pool_set.compose(p, 0, int(pool_set.background_pool[p.plant_id])) for p in plants]
    noisy = [np.clip(image + np.random.default_rng(7).integers(-6, 7, image.shape), 0, 255) for image in copies]
    return torch.from_numpy(np.stack([*noisy, *pool_set.pixels[pool_set.heldout[: len(plants)]]]).astype(np.uint8)), plants


def test_every_copy_is_assigned_to_its_plant_and_the_distance_is_that_of_a_caption_that_asks_for_it(pool_set):
    images, plants = copies_of(pool_set)
    gallery, asked = pool_set.gallery(), build_request(pool_set)
    which, near = match_to_plants(images, asked, gallery)
    assert which[: len(plants)].tolist() == list(range(len(plants))) and (near[: len(plants)] < 1).all()
    generations = Generations(images, ("",) * len(images), torch.arange(len(images)), torch.arange(1))
    for position, subject in enumerate(asked):
        slow = calibrated_l2(attach_ground_truth(generations, [subject] * len(images), gallery))
        mine = which == position
        assert torch.allclose(near[mine], slow[mine], rtol=1e-4)
        assert (slow >= near - 1e-4).all()  # no other plant is nearer


def test_a_plant_of_another_run_is_not_copied_by_images_it_was_never_in(pool_set):
    images, plants = copies_of(pool_set)
    _, near = match_to_plants(images[len(plants) :], [replace(subject) for subject in build_request(pool_set)], pool_set.gallery())
    assert (near < 1).float().mean() < 0.5  # emoji have near doubles; none is an exact copy
    assert near.min() > 0.1
