import torch

from afterglow.measures import model_maps


def test_what_collect_left_is_named_and_turned_so_that_high_means_copied(make_evidence):
    values = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    names = ("curvature", "early_difference.last", "early_difference.summed", "patch_distance", "self_attention", "split_product")
    derived = {name: values + number for number, name in enumerate(names)} | {"split_product.cross": values + 6}
    evidence = make_evidence(2, derived=derived)
    assert torch.equal(model_maps.curvature_difference(evidence), values.clamp(min=0))
    assert torch.equal(model_maps.curvature_difference(evidence, relu=False), values)
    assert torch.equal(model_maps.curvature_difference(evidence, of_score=True), (-values).clamp(min=0))
    assert torch.equal(model_maps.early_difference(evidence, summed=False), values + 1)
    assert torch.equal(model_maps.early_difference(evidence, summed=True), values + 2)
    assert torch.equal(model_maps.patch_nearness(evidence), -(values + 3))
    assert torch.equal(model_maps.self_attention_concentration(evidence), values + 4)
    assert torch.equal(model_maps.split_product(evidence), values + 5)
    assert torch.equal(model_maps.split_product(evidence, cross=True), values + 6)
