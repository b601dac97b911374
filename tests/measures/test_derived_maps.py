import torch

from afterglow.measures import derived_maps


def test_what_collect_left_is_named_and_turned_so_that_high_means_copied(make_generations):
    values = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    names = ("curvature", "early_difference.last", "early_difference.summed", "patch_distance", "self_attention", "split_product")
    extras = {name: values + number for number, name in enumerate(names)} | {"split_product.cross": values + 6}
    generations = make_generations(2, extras=extras)
    assert torch.equal(derived_maps.curvature_difference(generations), values.clamp(min=0))
    assert torch.equal(derived_maps.curvature_difference(generations, relu=False), values)
    assert torch.equal(derived_maps.curvature_difference(generations, of_score=True), (-values).clamp(min=0))
    assert torch.equal(derived_maps.early_difference(generations, summed=False), values + 1)
    assert torch.equal(derived_maps.early_difference(generations, summed=True), values + 2)
    assert torch.equal(derived_maps.patch_nearness(generations), -(values + 3))
    assert torch.equal(derived_maps.self_attention_concentration(generations), values + 4)
    assert torch.equal(derived_maps.split_product(generations), values + 5)
    assert torch.equal(derived_maps.split_product(generations, cross=True), values + 6)
