import math

import numpy as np
import pytest
import torch

from afterglow.functional.distances import masked_rms
from afterglow.functional.localization import map_auc
from afterglow.generations import Generations, Neighbors
from afterglow.measures import memorized
from afterglow.measures.guidance import score_difference


def by_hand(a, b, mask):
    """d(a,b;m) in plain Python; a, b: [C, H, W] in [0, 1]; mask: [H, W]."""
    total, weight = 0.0, 0.0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            weight += float(mask[y, x])
            total += sum((float(a[c, y, x]) - float(b[c, y, x])) ** 2 for c in range(len(a))) * float(mask[y, x])
    return math.sqrt(total / (len(a) * weight))


def distances_by_hand(generations):
    images, references = generations.images.double() / 255, generations.references.double() / 255
    return [by_hand(images[i], references[i], generations.eval_mask[i, 0]) for i in range(len(generations))]


def test_distance_is_the_root_mean_square_inside_the_mask(make_generations):
    generations = make_generations()
    assert memorized.reference_distance(generations).tolist() == pytest.approx(distances_by_hand(generations), rel=1e-5)


def test_a_soft_mask_weights(make_generations):
    generations = make_generations()
    a, b = generations.images.float() / 255, generations.references.float() / 255
    soft = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = [by_hand(a[i], b[i], soft[i, 0]) for i in range(4)]
    assert masked_rms(a, b, soft).tolist() == pytest.approx(expected, rel=1e-5)


def test_what_lies_outside_the_mask_does_not_count(make_generations):
    generations = make_generations()
    images = torch.where(generations.eval_mask, generations.references, generations.images)
    assert memorized.reference_distance(make_generations(images=images)).tolist() == [0.0] * 4


@pytest.mark.parametrize("others", [50, 3])
def test_calibrated_distance_divides_by_half_the_mean_over_all_other_groups(make_generations, others):
    generations = make_generations()
    kept = Neighbors(generations.neighbors.clusters[:, : 1 + others], generations.neighbors.distances[:, : 1 + others])
    generations = make_generations(neighbors=kept)
    own = distances_by_hand(generations)
    expected = [own[i] / (0.5 * sum(kept.distances[i, 1:].tolist()) / others) for i in range(4)]
    assert memorized.calibrated_l2(generations).tolist() == pytest.approx(expected, rel=1e-5)


def test_places_without_a_group_do_not_count(make_generations):
    generations = make_generations()
    clusters, distances = (tensor[:, :11] for tensor in (generations.neighbors.clusters, generations.neighbors.distances))
    padded = Neighbors(torch.nn.functional.pad(clusters, (0, 40), value=-1), torch.nn.functional.pad(distances, (0, 40), value=torch.inf))
    for measured in (memorized.calibrated_l2, memorized.nn_ratio):
        assert measured(make_generations(neighbors=padded)).tolist() == pytest.approx(
            measured(make_generations(neighbors=Neighbors(clusters, distances))).tolist(), rel=1e-6
        )


def test_a_copy_is_under_one(make_generations):
    # one gray level off everywhere is 1/255; neighbors at 3/255 and 1/255 on average
    reference = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    far, near = [3 / 255] * 50, [1 / 255] * 50
    neighbors = Neighbors(torch.arange(51).repeat(2, 1), torch.tensor([[0.0, *far], [0.0, *near]]))
    generations = make_generations(2, references=reference, images=reference + 1, neighbors=neighbors)
    assert memorized.calibrated_l2(generations).tolist() == pytest.approx([2 / 3, 2.0], rel=1e-4)
    assert memorized.memorized(generations).tolist() == [1.0, 0.0]


def test_ratio_is_that_of_the_reference_to_the_nearest_other_and_absent_under_one_gray_level(make_generations):
    reference = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    images = reference.clone()
    images[0] += 2  # far from both
    images[1] += 2  # far from its own, on another group
    # 2: on both; 3: on its own, far from the others
    second = torch.tensor([8 / 255, 0.5 / 255, 0.5 / 255, 4 / 255])
    distances = torch.cat([torch.zeros(4, 1), second[:, None], torch.full((4, 49), 0.5)], dim=1)
    generations = make_generations(references=reference, images=images, neighbors=Neighbors(torch.arange(51).repeat(4, 1), distances))
    found = memorized.nn_ratio(generations).tolist()
    assert found[:2] == pytest.approx([2 / 8, 2 / 0.5], rel=1e-4)
    assert math.isnan(found[2]) and found[3] == 0
    alone = Neighbors(torch.arange(51).repeat(4, 1), torch.full((4, 51), torch.inf))  # of a set of one group
    assert memorized.nn_ratio(make_generations(references=reference, images=images, neighbors=alone)).isnan().all()


def test_correlation_is_pearsons_inside_the_mask(make_generations):
    generations = make_generations()
    expected = []
    for i in range(4):
        inside = generations.eval_mask[i, 0].numpy()
        channels = zip(generations.images[i].numpy(), generations.references[i].numpy(), strict=True)
        expected.append(np.mean([np.corrcoef(a[inside], b[inside])[0, 1] for a, b in channels]))
    assert memorized.correlation(generations).tolist() == pytest.approx(expected, abs=1e-6)


def test_correlation_forgives_a_drift_of_color_that_distance_does_not(make_generations):
    generations = make_generations()
    drifted = (generations.references.float() * 0.5 + 40).round().to(torch.uint8)
    found = make_generations(images=drifted)
    assert memorized.correlation(found).min() > 0.999
    assert memorized.reference_distance(found).min() > 0.05


def test_a_constant_channel_counts_as_uncorrelated(make_generations):
    generations = make_generations()
    images = generations.references.clone()
    images[:, 0] = 77
    assert memorized.correlation(make_generations(images=images)).tolist() == pytest.approx([2 / 3] * 4, abs=1e-6)


@pytest.mark.parametrize(
    ("seeds", "expected"), [([1, 1, 0, 0], 1), ([1, 0, 0, 0], 0), ([1, 0], 1), ([0, 0], 0), ([1, 1, 0], 1), ([1, 0, 0], 0)]
)
def test_a_plant_is_memorized_when_half_of_its_seeds_are(seeds, expected):
    assert memorized.plant_memorized(torch.tensor(seeds, dtype=torch.float)) == expected


def local_plant(make_generations, images, *, spread, distances):
    extras = {"background_spread": torch.full((len(images),), spread), "background_distance": torch.tensor(distances)}
    mask = torch.zeros(len(images), 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    return make_generations(len(images), images=images, eval_mask=mask, extras=extras)


@pytest.mark.parametrize("seeds", [2, 4])
def test_outside_diversity_is_the_spread_of_the_seeds_over_that_of_the_variants(make_generations, seeds):
    images = torch.randint(256, (seeds, 3, 8, 8), generator=torch.Generator().manual_seed(seeds), dtype=torch.uint8)
    generations = local_plant(make_generations, images, spread=0.2, distances=[math.inf] * seeds)
    variances = [np.var(images[:, c, y, x].double().numpy() / 255, ddof=1) for c in range(3) for y in range(8) for x in range(4, 8)]
    assert memorized.outside_diversity(generations) == pytest.approx(math.sqrt(np.mean(variances)) / 0.2, rel=1e-5)


def test_local_to_global(make_generations):
    inf = math.inf
    template = torch.randint(256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    background_pool = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    same = template.expand(4, -1, -1, -1).contiguous()
    varied = torch.cat([same[..., :4], background_pool[..., 4:]], dim=-1)
    spread = float((background_pool.float() / 255).var(dim=0).mean().sqrt())
    far, half, few = [inf] * 4, [0.5, 0.9, 2.0, inf], [0.5, 1.0, 2.0, inf]
    cases = [(same, far, 1), (varied, far, 0), (varied, half, 1), (varied, few, 0)]
    for images, distances, expected in cases:
        assert memorized.local_to_global(local_plant(make_generations, images, spread=spread, distances=distances)) == expected
    # one global copy among four that vary is still diverse; images that vary by a quarter of the variants are not
    quarter = (same.float() + 0.25 * (varied.float() - same.float())).round().to(torch.uint8)
    assert memorized.local_to_global(local_plant(make_generations, quarter, spread=spread, distances=far)) == 1


def test_generations_with_exchanged_references_and_masks_shows_nothing(make_generations, tmp_path):
    """The negative control of the whole chain: perfect copies and perfect maps, then the plants' truth is dealt out anew."""
    count, side, generator = 40, 8, torch.Generator().manual_seed(0)
    references = torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    masks = torch.nn.functional.interpolate(torch.rand(count, 1, 3, 3, generator=generator), size=(side, side), mode="bilinear") > 0.5
    noise = torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    images = torch.where(masks, references, noise)
    distances = torch.stack([masked_rms(images.float() / 255, references.roll(k, 0).float() / 255, masks) for k in range(count)], 1)
    distances = torch.cat([distances[:, :1], distances[:, 1:].sort(dim=1).values], dim=1)
    neighbors = Neighbors(torch.arange(count).repeat(count, 1), distances)
    guidance = masks.float().expand(2, count, 3, side, side).add(0.01)
    rms = torch.ones(2, count)
    copies = make_generations(
        count, steps=2, images=images, references=references, eval_mask=masks, region=masks, guidance=guidance.half(), guidance_rms=rms
    )
    Generations(**(vars(copies) | {"neighbors": neighbors})).save(tmp_path)
    written = Generations.load(tmp_path)

    def shows(generations):
        maps = score_difference(generations, summed=True)
        return memorized.memorized(generations).mean().item(), map_auc(maps, generations.region).mean().item()

    assert shows(written) == (1.0, 1.0)
    dealt = torch.arange(count).roll(7)
    exchanged = {name: getattr(written, name)[dealt] for name in ("references", "eval_mask", "region")}
    fraction, auc = shows(Generations(**(vars(written) | exchanged)))
    assert fraction == 0 and auc < 0.6
