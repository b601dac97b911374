import numpy as np
import pytest
import torch

from afterglow.evidence import Evidence
from afterglow.measures.table import Measure, is_detector, maps, measure, named, scores, step_name

PAIRS = {"plant_id": torch.tensor([0, 0, 1, 1]), "caption": ("a", "a", "b", "b")}  # two generations of each caption
DERIVED = (
    "curvature", "early_difference.last", "early_difference.summed", "patch_distance", "self_attention", "split_product",
    "split_product.cross",
)  # fmt: skip


def derived(count=4, side=8, steps=5):
    generator = torch.Generator().manual_seed(1)
    numbers = {"sscd": torch.linspace(0, 1, count), "sharpness": torch.rand(count, generator=generator)}
    curves = {"basin_curve": torch.tensor([3.0, 1.0, 2.0, 3.0, 4.0]).repeat(count, 1)}
    numbers |= {"round_trip_error": torch.rand(count, generator=generator)}
    numbers["latent_difference"] = torch.rand(count, 4, side, side, generator=generator)
    return numbers | curves | {name: torch.rand(count, side, side, generator=generator) for name in DERIVED}


TRIVIAL = {"all_ones", "centred_gaussian", "luminance", "local_contrast"}
COPIES = {"distance", "calibrated", "ratio", "correlation", "memorized"}


@pytest.mark.parametrize(("steps", "spans"), [(5, {"1", "all"}), (10, {"1", "5", "all"}), (12, {"1", "5", "10", "all"})])
def test_every_measure_of_full_evidence_is_one_number_or_one_map_a_generation(make_evidence, steps, spans):
    evidence = make_evidence(4, steps=steps, derived=derived(), **PAIRS)
    numbers, soft = measure(evidence, scores(evidence)), measure(evidence, maps(evidence))
    for values in numbers.values():
        assert values.shape == (4,) and values.isfinite().all()
    for values in soft.values():
        assert values.ndim == 3 and len(values) == 4 and values.isfinite().all()
    assert set(numbers) > COPIES and set(soft) > TRIVIAL
    assert {name.removeprefix("magnitude.") for name in numbers if name.startswith("magnitude.")} == spans
    assert {name.removeprefix("ld.be.") for name in numbers if name.startswith("ld.be.")} == spans


def test_names_are_unique_and_the_four_layers_are_named(make_evidence):
    evidence = make_evidence()
    names = [m.name for m in (*scores(evidence), *maps(evidence))]
    assert len(names) == len(set(names))
    sets = {"be", "all", "down_blocks.0.attentions.0", "down_blocks.0.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0"}
    assert {name.removeprefix("brightness.") for name in names if name.startswith("brightness.")} == sets
    assert {name for name in names if name.startswith("end_token.")} == {
        f"end_token.{step}.{rule}.{layers}"
        for step in ("first", "last")
        for rule in ("first_eos", "last", "eos_and_pads")
        for layers in sets
    }


ALWAYS = ("images", "caption", "seed", "timesteps", "kind", "shape", "plant_id", "provenance")


def only(evidence, needs):
    """Evidence with what is always there and these needs, and nothing else ('guidance' is kept with its scale)."""
    fields = {name: getattr(evidence, name) for name in ALWAYS}
    for need in needs:
        field, _, name = need.partition(".")
        if field == "derived":
            fields.setdefault("derived", {})[name] = evidence.derived[name]
        elif field == "end_attention":
            step = {"first": 0, "last": len(evidence.timesteps) - 1}[name]
            fields[field] = fields.get(field, {}) | {key: value for key, value in evidence.end_attention.items() if key[0] == step}
        else:
            fields[field] = getattr(evidence, field)
    return Evidence(**fields, **({"guidance_rms": evidence.guidance_rms} if "guidance" in needs else {}))


def test_what_a_measure_says_it_needs_is_enough_and_without_it_the_measure_is_absent_never_zero(make_evidence):
    whole = make_evidence(derived=derived(), **PAIRS)
    every = [*scores(whole), *maps(whole)]
    assert {need for m in every for need in m.needs} > {"guidance", "token_attention", "end_attention.last", "neighbours", "derived.sscd"}
    for m in every:
        found = measure(only(whole, m.needs), [m])
        torch.testing.assert_close(found[m.name], m.compute(whole), equal_nan=True)
        for need in set(m.needs) - {"images"}:
            assert measure(only(whole, set(m.needs) - {need}), [m]) == {}


def test_ld_is_weighted_by_the_map_of_the_last_step_at_the_first_end_token(make_evidence):
    evidence = make_evidence(3, steps=12)
    layers = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2", "down_blocks.0.attentions.1.transformer_blocks.0.attn2"]
    mask = np.mean([evidence.end_attention[11, layer][..., 0].float().numpy() for layer in layers], axis=0).reshape(3, 8, 8)
    delta = evidence.guidance.double().numpy() * evidence.guidance_rms.double().numpy()[..., None, None, None]
    found = measure(evidence, scores(evidence))
    for name, steps in (("1", 1), ("10", 10), ("all", 12)):
        for row in range(3):
            norms = [np.linalg.norm(delta[t, row] * mask[row]) / mask[row].mean() for t in range(steps)]
            assert found[f"ld.be.{name}"][row].item() == pytest.approx(np.mean(norms), rel=1e-4)
            norms = [np.linalg.norm(delta[t, row]) for t in range(steps)]
            assert found[f"magnitude.{name}"][row].item() == pytest.approx(np.mean(norms), rel=1e-3)


def test_detectors_are_known_by_their_names(make_evidence):
    found = scores(make_evidence(steps=12))
    assert {m.name for m in found if m.detector} == {m.name for m in found if is_detector(m.name)}
    assert is_detector("ld.up_blocks.3.attentions.2.all") and not is_detector("memorized") and not is_detector("auc.luminance")


def test_measures_do_not_change_the_evidence(make_evidence):
    evidence, untouched = make_evidence(), make_evidence()
    measure(evidence, [*scores(evidence), *maps(evidence)])
    for name in ("images", "references", "planted_mask", "guidance", "guidance_rms", "token_attention"):
        assert torch.equal(getattr(evidence, name), getattr(untouched, name)), name


def test_layers_whose_end_tokens_were_not_kept_still_have_their_token_entropy(make_evidence):
    kept = "mid_block.attentions.0.transformer_blocks.0.attn2"
    whole = make_evidence()
    part = make_evidence(end_attention={key: value for key, value in whole.end_attention.items() if key[1] == kept})
    every, found = measure(whole, scores(whole)), measure(part, scores(part))
    assert {name for name in found if name.startswith("brightness.")} == {"brightness.all", "brightness.mid_block.attentions.0"}
    for name in (name for name in every if name.startswith("memattn_e")):
        assert torch.equal(every[name], found[name])


def test_end_tokens_of_other_steps_are_maps_of_their_own(make_evidence):
    whole = make_evidence()
    middle = {(2, layer): tensor for (step, layer), tensor in whole.end_attention.items() if step == 0}
    evidence = make_evidence(end_attention=middle)
    steps = {m.name.split(".")[1] for m in maps(evidence) if m.name.startswith("end_token.")}
    assert steps == {"step2"} and "end_token.step2.first_eos.all" in measure(evidence, maps(evidence))
    assert not any(name.startswith("ld.") for name in measure(evidence, scores(evidence)))  # its mask is that of the last step
    assert [step_name(i, 5) for i in range(5)] == ["first", "step1", "step2", "step3", "last"] and step_name(0, 1) == "last"


def test_measures_are_chosen_by_name(make_evidence):
    every = scores(make_evidence(steps=12))
    assert [m.name for m in named(every, ["magnitude.*"])] == ["magnitude.1", "magnitude.5", "magnitude.10", "magnitude.all"]
    with pytest.raises(ValueError, match="No measure is named 'magnitud'"):
        named(every, ["magnitude.*", "magnitud"])


def test_every_row_says_its_unit_and_source(make_evidence):
    evidence = make_evidence()
    for m in (*scores(evidence), *maps(evidence)):
        assert isinstance(m, Measure) and m.unit and m.source
