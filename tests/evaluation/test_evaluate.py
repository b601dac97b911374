from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.evaluation.evaluate import Processes, build_sampler, capture_config, evaluate, generate_with_ground_truth, required_inputs
from afterglow.evaluation.requests import GenerationPlan, as_request
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

FULL = np.ones((1, 8, 8), dtype=bool)


@pytest.fixture(scope="module")
def captioned(small_captioned):
    return small_captioned()


@pytest.fixture(scope="module")
def plain(small_plain):
    return small_plain()


def test_required_inputs_are_the_union_of_the_named_measures(captioned):
    assert required_inputs(captioned, 10, ["guidance_norm.*"]) == {"guidance"}
    assert required_inputs(captioned, 10, ["ld.be.1", "entropy.first"]) == {"guidance", "end_attention.last", "token_attention"}
    assert required_inputs(captioned, 10, ["end_token.first.first_eos.all"]) == {"end_attention.first"}
    everything = required_inputs(captioned, 10, ["*"])
    assert {"extras.sharpness", "extras.curvature", "extras.patch_distance", "extras.early_difference.last"} <= everything


def test_required_inputs_of_an_unconditional_model_exclude_text(plain):
    requires = required_inputs(plain, 10, ["*"])
    assert not any("end_attention" in need or need.endswith(("sharpness", "curvature", "basin_curve")) for need in requires)
    for name in ("guidance_norm.all", "end_token.last.*", "sharpness", "curvature_difference"):
        with pytest.raises(ValueError, match="DDPM has no captions"):
            required_inputs(plain, 10, [name])
    assert required_inputs(plain, 10, ["luminance", "self_attention"]) == {"extras.self_attention"}


def test_capture_config_leaves_out_early_difference_without_an_early_model():
    requires = {"extras.early_difference.last", "extras.sharpness"}
    assert capture_config(requires).extras == ["sharpness"]
    assert set(capture_config(requires, early=True).extras) == {"sharpness", "early_difference"}


def test_build_sampler_spacing_is_trailing_in_pixels(captioned):
    assert build_sampler(captioned, steps=3).options == {"timestep_spacing": "trailing"}
    assert build_sampler(captioned, spacing="leading").options == {"timestep_spacing": "leading"}


def test_evaluate_captions_gives_scores_without_ground_truth(captioned):
    result = evaluate(captioned, ["a cat", "a dog"], Sampler(steps=2), ["guidance_norm.all"])
    assert len(result.generations) == 8 and set(result.measurements["measure"]) == {"guidance_norm.all"}
    assert result.measurements["kind"].unique().tolist() == ["prompt"] and result.generations.token_attention is None


def test_evaluate_targets_without_a_gallery_are_compared_with_their_references(captioned):
    image = np.full((3, 8, 8), 7, dtype=np.uint8)
    target = Target(0, "global", "a cat", 0, FULL, FULL, "whole", image)
    result = evaluate(captioned, [target], Sampler(steps=2), ["guidance_norm.all"], plan=GenerationPlan(1))
    assert torch.equal(result.generations.references[0], torch.from_numpy(image)) and result.generations.neighbors is None
    assert set(result.measurements["measure"]) == {"guidance_norm.all"}


def test_evaluate_targets_with_a_gallery_measures_memorization(captioned):
    gallery = Gallery(np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8), np.arange(60))
    targets = [Target(row, "global", "a cat", row, FULL, FULL, "whole", gallery.pixels[row]) for row in range(2)]
    request = replace(as_request(targets), gallery=gallery)
    rows = evaluate(captioned, request, Sampler(steps=2), ["distance", "patch_nearness"]).measurements
    assert set(rows["measure"]) == {"distance", "memorized", "plant_memorized"} and len(rows[rows["measure"] == "distance"]) == 8


def test_evaluate_unknown_measure_is_refused(captioned):
    with pytest.raises(ValueError, match="No measure is named 'magnitud'"):
        evaluate(captioned, ["a cat"], measures=["magnitud"])


def test_generate_with_ground_truth_gathers_the_samples_of_all_processes(captioned):
    request, samples, capture = as_request(["a cat", "a dog"]), GenerationPlan(num_images=2).samples([0, 1]), CaptureConfig()
    whole = generate_with_ground_truth(captioned, request, samples[:3], Sampler(steps=2), capture)
    parts = [[samples[0], samples[2]], [samples[1], samples[2]]]  # the last sample pads the second process
    own = [generate(captioned, [request.captions[row] for row, _ in part], [seed for _, seed in part], Sampler(steps=2)) for part in parts]
    gathered = zip(*map(_tensors, own), strict=True)
    processes = Processes(0, 2, lambda tensor: torch.stack(next(gathered)))
    result = generate_with_ground_truth(captioned, request, samples[:3], Sampler(steps=2), capture, processes=processes)
    assert result.caption == whole.caption and result.seed.tolist() == whole.seed.tolist()
    assert (result.images.int() - whole.images.int()).abs().max() <= 1
    assert torch.allclose(result.guidance_rms, whole.guidance_rms, atol=1e-5)


def _tensors(generations):
    """The tensors of generations in the order in which they are gathered."""
    tensors = []
    generations.map(lambda tensor, dim: tensors.append(tensor) or tensor)
    return tensors
