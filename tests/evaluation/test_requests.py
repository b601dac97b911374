import numpy as np
import pytest

from afterglow.evaluation.requests import PlantedRequest, PromptRequest, as_request
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
