import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from afterglow.functional.localization import held_out_iou, map_auc, mask_prior, permuted_auc


def random_maps(count, side, seed=0):
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed))


def random_regions(count, side, seed=1):
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") > 0.5


@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_auc_is_scikit_learns_with_ties(levels):
    maps = (random_maps(6, 8) * levels).floor()
    regions = random_regions(6, 8)
    expected = [roc_auc_score(regions[i, 0].flatten(), maps[i].flatten()) for i in range(6)]
    np.testing.assert_allclose(map_auc(maps, regions), expected, rtol=1e-12)


def test_auc_of_a_coarse_map_is_that_of_the_map_at_image_size():
    maps, regions = random_maps(4, 4), random_regions(4, 16)
    large = torch.nn.functional.interpolate(maps[:, None], size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    expected = [roc_auc_score(regions[i, 0].flatten(), large[i].double().flatten()) for i in range(4)]
    np.testing.assert_allclose(map_auc(maps, regions), expected, rtol=1e-12)


@pytest.mark.parametrize("plants", [4, 20])
def test_the_truth_itself_is_perfect_and_its_opposite_is_not(plants):
    regions = random_regions(plants, 8)
    truth = regions[:, 0].float()
    assert map_auc(truth, regions).tolist() == [1.0] * plants
    assert held_out_iou(truth, regions, range(plants))[0].tolist() == [1.0] * plants
    assert held_out_iou(0.001 * truth + 5, regions, range(plants))[0].tolist() == [1.0] * plants
    assert map_auc(1 - truth, regions).tolist() == [0.0] * plants
    area = regions.flatten(1).double().mean(1)  # at best everything is predicted
    torch.testing.assert_close(held_out_iou(1 - truth, regions, range(plants))[0], area)


def test_regions_of_other_plants_are_found_half_of_the_time():
    regions = random_regions(300, 8)
    assert map_auc(regions[:, 0].float(), regions.roll(1, 0)).mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_flat_map_has_an_auc_of_one_half():
    assert map_auc(torch.ones(4, 8, 8), random_regions(4, 8)).tolist() == [0.5] * 4


def slow_overlap(values, region, threshold):
    chosen = {pixel for pixel, value in enumerate(values.flatten().tolist()) if value > threshold}
    truth = {pixel for pixel, inside in enumerate(region.flatten().tolist()) if inside}
    return len(chosen & truth) / max(1, len(chosen | truth))


def slow_threshold(maps, regions, rows):
    """The best of 101 quantiles of the chosen maps, or below them all; the lowest of equals."""
    pooled = np.sort(np.concatenate([maps[row].flatten().numpy() for row in rows]))
    candidates = [pooled[0] - 1, *np.quantile(pooled, [k / 100 for k in range(101)])]
    means = [np.mean([slow_overlap(maps[row], regions[row], threshold) for row in rows]) for threshold in candidates]
    return candidates[int(np.argmax(means))]


def plants_with_maps(plants, seeds=2, side=4):
    """Maps that find their regions somewhat, each plant with a brightness of its own."""
    regions = random_regions(plants, side, seed=plants).repeat_interleave(seeds, 0)
    clusters = torch.arange(plants).repeat_interleave(seeds)
    maps = random_maps(plants * seeds, side, seed=plants) + 0.8 * regions[:, 0] + 0.05 * clusters[:, None, None]
    return maps, regions, clusters.tolist()


@pytest.mark.parametrize(("plants", "seeds"), [(2, 2), (5, 2), (15, 1)])
def test_few_plants_are_evaluated_by_all_the_others(plants, seeds):
    maps, regions, clusters = plants_with_maps(plants, seeds)
    shares, used = held_out_iou(maps, regions, clusters)
    for row, cluster in enumerate(clusters):
        others = [other for other, g in enumerate(clusters) if g != cluster]
        threshold = slow_threshold(maps, regions, others)
        assert used[row].item() == pytest.approx(threshold, rel=1e-6)
        assert shares[row].item() == pytest.approx(slow_overlap(maps[row], regions[row], used[row].item()))


@pytest.mark.parametrize("plants", [16, 17])
def test_from_16_plants_on_one_half_chooses_for_the_other(plants):
    maps, regions, clusters = plants_with_maps(plants)
    shares, used = held_out_iou(maps, regions, clusters)
    halves = [[row for row, value in enumerate(used.tolist()) if value == threshold] for threshold in sorted(set(used.tolist()))]
    assert len(halves) == 2
    counts = [len({clusters[row] for row in half}) for half in halves]
    assert sum(counts) == plants and abs(counts[0] - counts[1]) <= 1  # no plant is on both sides
    for evaluated, choosing in (halves, halves[::-1]):
        assert used[evaluated[0]].item() == pytest.approx(slow_threshold(maps, regions, choosing), rel=1e-6)
        for row in evaluated:
            assert shares[row].item() == pytest.approx(slow_overlap(maps[row], regions[row], used[row].item()))


@pytest.mark.parametrize("plants", [4, 15, 16])
def test_no_plant_has_a_say_in_its_own_threshold(plants):
    maps, regions, clusters = plants_with_maps(plants)
    before = held_out_iou(maps, regions, clusters)[1]
    for cluster in (0, plants // 2, plants - 1):
        own = torch.tensor([g == cluster for g in clusters])
        changed = torch.where(own[:, None, None], 1000 * random_maps(len(maps), 4, seed=9), maps)
        after = held_out_iou(changed, regions, clusters)[1]
        assert torch.equal(after[own], before[own])
        assert not torch.equal(after[~own], before[~own])  # but it has one in others'


def test_one_plant_alone_cannot_be_evaluated():
    maps, regions, _ = plants_with_maps(1)
    with pytest.raises(ValueError, match="at least two plants; this input has 1"):
        held_out_iou(maps, regions, [5, 5])


def test_controls_of_a_map_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(6, 5, 5, generator=generator)
    own = torch.rand(3, 1, 5, 5, generator=generator) > 0.5
    own[2] = own[0]  # the same mask again
    plants, shapes = [7, 7, 3, 3, 5, 5], ["box", "box", "box", "box", "box", "box"]
    regions = own.repeat_interleave(2, 0)
    found = permuted_auc(maps, regions, plants, shapes)
    for row in range(6):
        others = [mask for mask in own if not torch.equal(mask, regions[row])]
        wanted = [roc_auc_score(mask.flatten(), maps[row].flatten()) for mask in others]
        assert found[row].item() == pytest.approx(np.mean(wanted))
    assert permuted_auc(maps, regions, plants, ["a", "a", "b", "b", "c", "c"]).isnan().all()
    prior = mask_prior(own)
    assert torch.allclose(prior[1], (own[0, 0].float() + own[2, 0].float()) / 2)
