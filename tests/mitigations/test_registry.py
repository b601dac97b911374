import pytest
import torch

from afterglow.analysis.thresholds import Thresholds, published_thresholds
from afterglow.mitigations.cost import CostTracker, flops_per_image
from afterglow.mitigations.registry import CATALOG, MitigationInputs, check_text, expand_strengths, find_mitigations
from afterglow.sampling.loop import Sampler, generate

BY_NAME = {entry.name: entry for entry in CATALOG}
FREE = [entry.name for entry in CATALOG if not entry.gradients]
ONE_PASS = [name for name in FREE if name not in ("noise", "prss", "og_dtp", "og_dtp.toggled")]


@pytest.mark.parametrize("name", BY_NAME)
def test_at_its_neutral_strength_a_mitigation_changes_nothing_and_at_its_default_it_does(name, thresholds, pixels, untouched):
    entry = BY_NAME[name]
    neutral, usual = (pixels(entry(strength, thresholds)) for strength in (entry.identity_strength, entry.default))
    assert (neutral - untouched).abs().max() <= 1e-4
    assert (usual - untouched).abs().flatten(1).amax(1).max() > 1e-3


@pytest.mark.parametrize("name", ONE_PASS)
def test_without_gradients_a_mitigation_costs_no_more_than_plain_sampling(name, heard, setup, thresholds):
    plain = flops_per_image(heard, setup)
    assert plain > 0 and flops_per_image(heard, setup, BY_NAME[name](BY_NAME[name].default, thresholds)) <= 1.03 * plain


@pytest.mark.parametrize(("name", "strength"), [("noise", 3), ("prss", 2), ("og_dtp", 1)])
def test_what_needs_more_calls_costs_no_more_a_call(name, strength, heard, setup, thresholds):
    mitigation = BY_NAME[name](strength, thresholds)
    counted = CostTracker(mitigation)(heard, setup)
    with torch.no_grad():
        evaluations = generate(heard, setup.captions, setup.seeds, Sampler(steps=6, guidance_scale=2.0), mitigation=CostTracker(mitigation))
    calls = float(evaluations.extras["cost.evaluations"][0])
    with counted.attention_context():
        pass  # which takes its hook away again
    assert calls > 12 and flops_per_image(heard, setup, mitigation) / calls <= 1.03 * flops_per_image(heard, setup) / 12


def test_every_strength_of_every_grid_can_be_made():
    for entry in CATALOG:
        for strength in (entry.default, entry.identity_strength, *entry.grid):
            assert callable(entry(strength, published_thresholds(6), MitigationInputs(trigger=0.5)))


@pytest.mark.parametrize(("name", "strength"), [("stp", -1), ("noise", 0), ("noise", 1.5), ("memattn", 0.5), ("dtp", 1.1), ("prss", -2)])
def test_a_strength_out_of_range_is_refused_by_name(name, strength):
    with pytest.raises(ValueError, match=rf"The strength of {name} .*not {strength:g}"):
        BY_NAME[name](strength, published_thresholds(6))


def test_names_and_strengths():
    assert [entry.name for entry in find_mitigations(["stp", "og_*"])] == ["stp", "og_stp", "og_dtp", "og_dtp.toggled"]
    with pytest.raises(ValueError, match="There is no mitigation 'prayer'"):
        find_mitigations(["prayer"])
    with pytest.raises(ValueError, match=r"There is no mitigation 'stpp': did you mean stp\?"):
        find_mitigations(["stpp"])
    entries = find_mitigations(["stp", "noise"])
    assert [(e.name, s) for e, s in expand_strengths(entries, [])] == [("stp", 500), ("noise", 8)]
    assert [(e.name, s) for e, s in expand_strengths(entries, ["grid", "stp=1,2.5"])] == [("stp", 1), ("stp", 2.5)] + [
        ("noise", n) for n in (2, 4, 8, 16)
    ]
    for word, said in (("stp=a", "numbers"), ("dtp=1", "requested mitigation"), ("grill", "requested mitigation")):
        with pytest.raises(ValueError, match=said):
            expand_strengths(entries, [word])


def test_a_model_without_captions_is_refused_by_name(small_plain):
    model = small_plain()
    with pytest.raises(ValueError, match="stp, noise: mitigations act on captions, and DDPM has no captions"):
        check_text(model, find_mitigations(["stp", "noise"]))
    with pytest.raises(ValueError, match="StaticTransition acts on captions, and DDPM has no captions"):
        generate(model, [""], [0], Sampler(steps=1), mitigation=BY_NAME["stp"](500, published_thresholds(1)))


def test_ld_without_its_layers_is_refused():
    with pytest.raises(ValueError, match="wen.ld requires end-token attention"):
        BY_NAME["wen.ld"](1.0, Thresholds((1.0,), None, 1.0, "controls"))
