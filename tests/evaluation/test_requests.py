import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from afterglow.evaluation.requests import (
    EvalRequest,
    PlantFilter,
    heldout_features,
    planted_request,
    prompt_request,
    required_inputs,
    with_quality,
)


@pytest.fixture(scope="module")
def captioned(small_captioned):
    return small_captioned()


@pytest.fixture(scope="module")
def plain(small_plain):
    return small_plain()


def test_needs_are_the_union_of_the_named_measures_and_no_more(captioned):
    assert required_inputs(captioned, 10, ["guidance_norm.*"]) == {"guidance"}
    assert required_inputs(captioned, 10, ["ld.be.1", "entropy.first"]) == {"guidance", "end_attention.last", "token_attention"}
    assert required_inputs(captioned, 10, ["end_token.first.first_eos.all"]) == {"end_attention.first"}
    everything = required_inputs(captioned, 10, ["*"])
    assert {"extras.sharpness", "extras.curvature", "extras.patch_distance", "extras.early_difference.last"} <= everything


def test_a_model_without_text_is_never_asked_for_what_text_makes(plain):
    requires = required_inputs(plain, 10, ["*"])
    assert not any("end_attention" in need or need.endswith(("sharpness", "curvature", "basin_curve")) for need in requires)
    for name in ("guidance_norm.all", "end_token.last.*", "sharpness", "curvature_difference"):
        with pytest.raises(ValueError, match="DDPM has no captions: the measure is absent"):
            required_inputs(plain, 10, [name])
    assert required_inputs(plain, 10, ["luminance", "self_attention"]) == {"extras.self_attention"}


def test_a_run_of_another_size_than_the_model_is_refused(tmp_path, captioned):
    planting = {"num_global": 1, "num_local": 1, "num_decoys": 0, "num_tints": 0}
    config = json.dumps({"seed_everything": 0, "data": {"init_args": {"resolution": 16, "set_size": 20, "planting": planting}}})
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=r"are \(3, 16, 16\), and the model makes \(3, 8, 8\)"):
        planted_request(captioned, tmp_path, num_controls=1, requires=set())


def test_captions_of_a_list_keep_their_kinds(captioned, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    asked = prompt_request(captioned, tmp_path / "a.txt", kind="control", requires=set())
    assert list(asked.captions) == ["one", "two"] and asked.about["kind"] == "control"


def test_some_of_what_was_planted_in_its_order():
    asked = [SimpleNamespace(kind=kind) for kind in ("global", "phantom", "global", "global", "local", "control", "control", "heldout")]
    assert PlantFilter().of(asked) == asked
    assert PlantFilter(("global", "control"), plants=2).of(asked) == [asked[row] for row in (0, 2, 5, 6)]


def test_held_out_images_are_described_by_their_pixels_and_by_an_encoder(captioned):
    heldout = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    features = SimpleNamespace(name="dino", compute=lambda images: torch.ones(len(images), 2, 2, 5))
    asked = EvalRequest(["a"], lambda generations, rows: generations, heldout=heldout)
    assert {name: tuple(f.shape) for name, f in heldout_features(asked, features).items()} == {"pixels4": (3, 48), "dino": (3, 5)}
    assert heldout_features(EvalRequest(["a"], lambda generations, rows: generations), features) == {}
    assert with_quality(asked, None, features).about == {"clip": None, "features": "dino"}
