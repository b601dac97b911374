from types import SimpleNamespace

import numpy as np
import pytest
import torch

from afterglow.evaluation.embeddings import Encoder, heldout_features, with_embeddings, with_quality
from afterglow.evaluation.requests import (
    SEED_RULES,
    GenerationPlan,
    PlantedRequest,
    PromptRequest,
    as_request,
)
from afterglow.planting.targets import Target


def test_as_request_takes_captions_targets_and_requests() -> None:
    mask = np.ones((1, 2, 2), dtype=bool)
    target = Target(0, "global", "a cat", 0, mask, mask, "whole")
    prompts, planted = as_request(["a", "b"]), as_request([target])
    assert isinstance(prompts, PromptRequest) and list(prompts.captions) == ["a", "b"]
    assert isinstance(planted, PlantedRequest) and list(planted.captions) == ["a cat"]
    assert as_request(planted) is planted


def test_annotate_adds_the_kinds_of_the_prompts(make_generations) -> None:
    request = as_request(["a"])
    generations = request.annotate(make_generations(2, references=None), [0, 0])
    assert generations.kind == ("prompt", "prompt")
    with pytest.raises(IndexError):
        request.annotate(make_generations(1), [5])


@pytest.fixture(scope="module")
def captioned(small_captioned):
    return small_captioned()


def test_heldout_features_are_pixels_and_patch_tokens(captioned):
    heldout = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    features = SimpleNamespace(name="dino", compute=lambda images: torch.ones(len(images), 2, 2, 5))
    request = PlantedRequest(targets=[], heldout=heldout)
    assert {name: tuple(f.shape) for name, f in heldout_features(request, features).items()} == {"pixels4": (3, 48), "dino": (3, 5)}
    assert heldout_features(as_request(["a"]), features) == {}
    assert with_quality(request, None, features).metadata == {"clip": None, "features": "dino"}


def test_with_embeddings_of_prompts_without_images_is_refused(captioned, tmp_path, monkeypatch, make_generations):
    monkeypatch.setattr("afterglow.evaluation.embeddings.patch_tokens", lambda folder: Encoder(folder, lambda images: images))
    request = with_embeddings(as_request(["a", "b"]), sscd_file=None, sscd_transform="skew_320", tokens="dino")
    assert request.metadata == {"sscd": None, "tokens": "dino"}
    with pytest.raises(ValueError, match="the list of captions names none"):
        request.annotate(make_generations(2, references=None), [0, 1])


def test_seed_rules_of_the_first_image():
    assert [SEED_RULES["image"](5, prompt, 1) for prompt in range(3)] == [6, 6, 6]
    assert [SEED_RULES["prompt"](5, prompt, 0) for prompt in range(3)] == [5, 6, 7]
    assert [SEED_RULES["constant"](42, prompt, 0) for prompt in range(3)] == [42, 42, 42]


@pytest.mark.parametrize("rule", SEED_RULES)
def test_samples_have_distinct_seeds_per_prompt(rule):
    samples = GenerationPlan(num_images=3, seed_rule=rule).samples([1, 4])
    assert [prompt for prompt, _ in samples] == [1, 1, 1, 4, 4, 4]
    assert all(len({seed for prompt, seed in samples if prompt == number}) == 3 for number in (1, 4))


def test_parts_cover_all_prompts_in_order():
    parts = GenerationPlan(prompts_per_part=2).parts(5)
    assert [list(part) for part in parts] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("options", [{"seed_rule": "line"}, {"num_images": 0}, {"prompts_per_part": 0}])
def test_plan_with_invalid_options_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        GenerationPlan(**options)
