import numpy as np
import pytest
import torch

from afterglow.measures.summary import DETECTORS
from afterglow.measures.table import maps, measure, scores

TRIVIAL = {"all_ones", "centred_gaussian", "luminance", "local_contrast"}
COPIES = {"distance", "calibrated", "ratio", "correlation", "memorized"}


@pytest.mark.parametrize(("steps", "spans"), [(5, {"1", "all"}), (10, {"1", "all"}), (12, {"1", "10", "all"})])
def test_every_measure_of_full_evidence_is_one_number_or_one_map_a_generation(make_evidence, steps, spans):
    evidence = make_evidence(4, steps=steps)
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


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("guidance", ("magnitude.", "ld.", "score_difference.")),
        ("end_attention", ("ld.", "brightness.", "end_token.")),
        ("token_attention", ("entropy.",)),
        ("neighbours", tuple(sorted(COPIES))),
        ("references", tuple(sorted(COPIES))),
    ],
)
def test_a_measure_whose_input_is_missing_is_absent_never_zero(make_evidence, missing, gone):
    whole, evidence = make_evidence(), make_evidence(**{missing: None})
    every = [m.name for m in (*scores(whole), *maps(whole))]
    found = {**measure(evidence, scores(evidence)), **measure(evidence, maps(evidence))}
    assert set(found) == {name for name in every if not name.startswith(gone)}


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


def test_what_the_table_calls_detectors_is_what_a_probe_judges_as_detectors(make_evidence):
    found = scores(make_evidence(steps=12))
    assert {m.name for m in found if m.detector} == {m.name for m in found if m.name.startswith(DETECTORS)}


def test_measures_do_not_change_the_evidence(make_evidence):
    evidence, untouched = make_evidence(), make_evidence()
    measure(evidence, [*scores(evidence), *maps(evidence)])
    for name in ("images", "references", "planted_mask", "guidance", "guidance_rms", "token_attention"):
        assert torch.equal(getattr(evidence, name), getattr(untouched, name)), name
