import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from afterglow.asking import Asked, Some, ask_planted, ask_prompts, held_out_pictures, needs_of_names, with_quality


@pytest.fixture(scope="module")
def captioned(small_captioned):
    return small_captioned()


@pytest.fixture(scope="module")
def plain(small_plain):
    return small_plain()


def test_needs_are_the_union_of_the_named_measures_and_no_more(captioned):
    assert needs_of_names(captioned, 10, ["magnitude.*"]) == {"guidance"}
    assert needs_of_names(captioned, 10, ["ld.be.1", "entropy.first"]) == {"guidance", "end_attention.last", "token_attention"}
    assert needs_of_names(captioned, 10, ["end_token.first.first_eos.all"]) == {"end_attention.first"}
    everything = needs_of_names(captioned, 10, ["*"])
    assert {"derived.sharpness", "derived.curvature", "derived.patch_distance", "derived.early_difference.last"} <= everything


def test_a_model_without_text_is_never_asked_for_what_text_makes(plain):
    needs = needs_of_names(plain, 10, ["*"])
    assert not any("end_attention" in need or need.endswith(("sharpness", "curvature", "basin_curve")) for need in needs)
    for name in ("magnitude.all", "end_token.last.*", "sharpness", "curvature_difference"):
        with pytest.raises(ValueError, match="DDPM has no captions: the measure is absent"):
            needs_of_names(plain, 10, [name])
    assert needs_of_names(plain, 10, ["luminance", "self_attention"]) == {"derived.self_attention"}


def test_a_run_of_another_size_than_the_model_is_refused(tmp_path, captioned):
    planting = {"num_global": 1, "num_local": 1, "num_decoys": 0, "num_tints": 0}
    config = json.dumps({"seed_everything": 0, "data": {"init_args": {"resolution": 16, "set_size": 20, "planting": planting}}})
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=r"are \(3, 16, 16\), and the model makes \(3, 8, 8\)"):
        ask_planted(captioned, tmp_path, num_controls=1, needs=set())


def test_captions_of_a_list_keep_their_kinds(captioned, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    asked = ask_prompts(captioned, tmp_path / "a.txt", kind="control", needs=set())
    assert list(asked.captions) == ["one", "two"] and asked.about["kind"] == "control"


def test_some_of_what_was_planted_in_its_order():
    asked = [SimpleNamespace(kind=kind) for kind in ("global", "phantom", "global", "global", "local", "control", "control", "heldout")]
    assert Some().of(asked) == asked
    assert Some(("global", "control"), plants=2).of(asked) == [asked[row] for row in (0, 2, 5, 6)]


def test_held_out_pictures_are_described_by_their_pixels_and_by_an_encoder(captioned):
    pictures = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    features = SimpleNamespace(name="dino", compute=lambda images: torch.ones(len(images), 2, 2, 5))
    asked = Asked(["a"], lambda evidence, rows: evidence, heldout=pictures)
    assert {name: tuple(f.shape) for name, f in held_out_pictures(asked, features).items()} == {"pixels4": (3, 48), "dino": (3, 5)}
    assert held_out_pictures(Asked(["a"], lambda evidence, rows: evidence), features) == {}
    assert with_quality(asked, None, features).about == {"clip": None, "features": "dino"}
