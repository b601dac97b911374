from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.generations import Generations
from afterglow.measures.registry import (
    Measure,
    available_maps,
    available_scores,
    compute_measures,
    is_detector,
    resolve_names,
    step_name,
)

PAIRS = {"plant_id": torch.tensor([0, 0, 1, 1]), "caption": ("a", "a", "b", "b")}  # two generations of each caption
DERIVED = (
    "curvature", "early_difference.last", "early_difference.summed", "patch_distance", "self_attention", "split_product",
    "split_product.cross",
)  # fmt: skip


def extras(count=4, side=8, steps=5):
    generator = torch.Generator().manual_seed(1)
    numbers = {"sscd": torch.linspace(0, 1, count), "sharpness": torch.rand(count, generator=generator)}
    curves = {"basin_curve": torch.tensor([3.0, 1.0, 2.0, 3.0, 4.0]).repeat(count, 1)}
    numbers |= {"low_noise_cosine": torch.linspace(-1, 1, count), "update_norms": torch.rand(count, steps, generator=generator)}
    numbers["update_region"] = torch.tensor([[0.5], [0.1]]).expand(count, 2, steps)
    numbers |= {"reconstruction_error": torch.rand(count, generator=generator)}
    numbers["latent_difference"] = torch.rand(count, 4, side, side, generator=generator)
    return numbers | curves | {name: torch.rand(count, side, side, generator=generator) for name in DERIVED}


TRIVIAL = {"all_ones", "centered_gaussian", "luminance", "local_contrast"}
COPIES = {"distance", "calibrated_l2", "nn_ratio", "correlation", "memorized"}


@pytest.mark.parametrize(("steps", "spans"), [(5, {"1", "all"}), (10, {"1", "5", "all"}), (12, {"1", "5", "10", "all"})])
def test_every_measure_of_full_generations_is_one_number_or_one_map_a_generation(make_generations, steps, spans):
    generations = make_generations(4, steps=steps, extras=extras(), **PAIRS)
    numbers, soft = compute_measures(generations, available_scores(generations)), compute_measures(generations, available_maps(generations))
    for values in numbers.values():
        assert values.shape == (4,) and values.isfinite().all()
    for values in soft.values():
        assert values.ndim == 3 and len(values) == 4 and values.isfinite().all()
    assert set(numbers) > COPIES and set(soft) > TRIVIAL
    assert {name.removeprefix("guidance_norm.") for name in numbers if name.startswith("guidance_norm.")} == spans
    assert {name.removeprefix("ld.be.") for name in numbers if name.startswith("ld.be.")} == spans


def test_names_are_unique_and_the_four_layers_are_named(make_generations):
    generations = make_generations()
    names = [m.name for m in (*available_scores(generations), *available_maps(generations))]
    assert len(names) == len(set(names))
    sets = {"be", "all", "down_blocks.0.attentions.0", "down_blocks.0.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0"}
    assert {name.removeprefix("end_token_mean.") for name in names if name.startswith("end_token_mean.")} == sets
    assert {name for name in names if name.startswith("end_token.")} == {
        f"end_token.{step}.{rule}.{layers}"
        for step in ("first", "last")
        for rule in ("first_eos", "last", "eos_and_pads")
        for layers in sets
    }
    groups = ("bos", "words", "pads")
    assert {name for name in names if name.startswith(("token_group.", "sink_darkness."))} == {
        f"{family}.{layers}"
        for step in ("first", "last")
        for family in (*(f"token_group.{step}.{group}" for group in groups), f"sink_darkness.{step}")
        for layers in sets
    }
    masses = {f"attention_mass.{group}.{layers}" for group in (*groups, "first_end", "end_and_pads") for layers in sets}
    assert masses | {f"sink_darkness_mean.{layers}" for layers in sets} < set(names)


ALWAYS = ("images", "caption", "seed", "timesteps", "kind", "shape", "plant_id", "provenance")


def only(generations, requires):
    """Generations with what is always there and these needs, and nothing else ('guidance' is kept with its scale)."""
    fields = {name: getattr(generations, name) for name in ALWAYS}
    for need in requires:
        field, _, name = need.partition(".")
        if field == "extras":
            fields.setdefault("extras", {})[name] = generations.extras[name]
        elif field == "end_attention":
            step = {"first": 0, "last": len(generations.timesteps) - 1}[name]
            fields[field] = fields.get(field, {}) | {key: value for key, value in generations.end_attention.items() if key[0] == step}
        else:
            fields[field] = getattr(generations, field)
    return Generations(**fields, **({"guidance_rms": generations.guidance_rms} if "guidance" in requires else {}))


def test_what_a_measure_says_it_needs_is_enough_and_without_it_the_measure_is_absent_never_zero(make_generations):
    whole = make_generations(extras=extras(), **PAIRS)
    every = [*available_scores(whole), *available_maps(whole)]
    assert {need for m in every for need in m.requires} > {"guidance", "token_attention", "end_attention.last", "neighbors", "extras.sscd"}
    for m in every:
        found = compute_measures(only(whole, m.requires), [m])
        torch.testing.assert_close(found[m.name], m.compute(whole), equal_nan=True)
        for need in set(m.requires) - {"images"}:
            assert compute_measures(only(whole, set(m.requires) - {need}), [m]) == {}


def test_ld_is_weighted_by_the_map_of_the_last_step_at_the_first_end_token(make_generations):
    generations = make_generations(3, steps=12)
    layers = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2", "down_blocks.0.attentions.1.transformer_blocks.0.attn2"]
    mask = np.mean([generations.end_attention[11, layer][..., 0].float().numpy() for layer in layers], axis=0).reshape(3, 8, 8)
    delta = generations.guidance.double().numpy() * generations.guidance_rms.double().numpy()[..., None, None, None]
    found = compute_measures(generations, available_scores(generations))
    for name, steps in (("1", 1), ("10", 10), ("all", 12)):
        for row in range(3):
            norms = [np.linalg.norm(delta[t, row] * mask[row]) / mask[row].mean() for t in range(steps)]
            assert found[f"ld.be.{name}"][row].item() == pytest.approx(np.mean(norms), rel=1e-4)
            norms = [np.linalg.norm(delta[t, row]) for t in range(steps)]
            assert found[f"guidance_norm.{name}"][row].item() == pytest.approx(np.mean(norms), rel=1e-3)


def test_control_of_ld_uses_the_map_of_another_caption(make_generations):
    generations = make_generations(3, steps=12)
    generations = replace(generations, caption=("cat", "cat", "dog"))
    swapped = replace(generations, end_attention={key: value[[2, 2, 0]] for key, value in generations.end_attention.items()})
    control = compute_measures(generations, available_scores(generations))["ld_other_caption.be.all"]
    torch.testing.assert_close(control, compute_measures(swapped, available_scores(swapped))["ld.be.all"])
    alone = replace(generations, caption=("cat",) * 3)
    assert compute_measures(alone, available_scores(alone))["ld_other_caption.be.all"].isnan().all()


def test_detectors_are_known_by_their_names(make_generations):
    found = available_scores(make_generations(steps=12))
    assert {m.name for m in found if m.detector} == {m.name for m in found if is_detector(m.name)}
    assert is_detector("ld.up_blocks.3.attentions.2.all") and not is_detector("memorized") and not is_detector("auc.luminance")


def test_measures_do_not_change_the_generations(make_generations):
    generations, untouched = make_generations(), make_generations()
    compute_measures(generations, [*available_scores(generations), *available_maps(generations)])
    for name in ("images", "references", "eval_mask", "guidance", "guidance_rms", "token_attention"):
        assert torch.equal(getattr(generations, name), getattr(untouched, name)), name


def test_layers_whose_end_tokens_were_not_kept_still_have_their_token_entropy(make_generations):
    kept = "mid_block.attentions.0.transformer_blocks.0.attn2"
    whole = make_generations()
    part = make_generations(end_attention={key: value for key, value in whole.end_attention.items() if key[1] == kept})
    every, found = compute_measures(whole, available_scores(whole)), compute_measures(part, available_scores(part))
    assert {name for name in found if name.startswith("end_token_mean.")} == {"end_token_mean.all", "end_token_mean.mid_block.attentions.0"}
    for name in (name for name in every if name.startswith("memattn_e")):
        assert torch.equal(every[name], found[name])


def test_end_tokens_of_other_steps_are_maps_of_their_own(make_generations):
    whole = make_generations()
    middle = {(2, layer): tensor for (step, layer), tensor in whole.end_attention.items() if step == 0}
    generations = make_generations(end_attention=middle)
    steps = {m.name.split(".")[1] for m in available_maps(generations) if m.name.startswith("end_token.")}
    assert steps == {"step2"} and "end_token.step2.first_eos.all" in compute_measures(generations, available_maps(generations))
    assert not any(
        name.startswith("ld.") for name in compute_measures(generations, available_scores(generations))
    )  # its mask is that of the last step
    assert [step_name(i, 5) for i in range(5)] == ["first", "step1", "step2", "step3", "last"] and step_name(0, 1) == "last"


def test_measures_are_chosen_by_name(make_generations):
    every = available_scores(make_generations(steps=12))
    assert [m.name for m in resolve_names(every, ["guidance_norm.*"])] == [
        "guidance_norm.1",
        "guidance_norm.5",
        "guidance_norm.10",
        "guidance_norm.all",
    ]
    with pytest.raises(ValueError, match="No measure is named 'guidance_nrm.all': did you mean guidance_norm.all"):
        resolve_names(every, ["guidance_norm.*", "guidance_nrm.all"])


def test_every_row_says_its_unit_and_source(make_generations):
    generations = make_generations()
    for m in (*available_scores(generations), *available_maps(generations)):
        assert isinstance(m, Measure) and m.unit and m.source
