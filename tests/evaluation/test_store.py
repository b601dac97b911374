import json
import shutil
from dataclasses import replace

import pytest
import torch

from afterglow.evaluation.requests import GenerationPlan, as_request
from afterglow.evaluation.store import collect
from afterglow.generations import Generations, check_complete, parts_of
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

REQUEST = as_request(["one", "two", "three", "four", "five"])
PLAN = GenerationPlan(num_images=2, prompts_per_part=2)
HOW = {"sampler": Sampler(steps=2), "capture": CaptureConfig()}


@pytest.fixture(scope="module")
def model(small_captioned):
    return small_captioned()


def same(a, b):
    """Two collections, file by file."""
    assert [part.name for part in parts_of(a)] == [part.name for part in parts_of(b)]
    for one, two in zip(parts_of(a), parts_of(b), strict=True):
        x, y = Generations.load(one), Generations.load(two)
        assert x.caption == y.caption and torch.equal(x.seed, y.seed) and torch.equal(x.images, y.images)
        assert torch.equal(x.guidance, y.guidance) and torch.equal(x.token_attention, y.token_attention)


def test_collect_equals_one_call_of_generate(model, tmp_path):
    collect(model, REQUEST, PLAN, tmp_path / "a", **HOW)
    generations = Generations.cat([Generations.load(part) for part in parts_of(tmp_path / "a")])
    captions = [caption for caption in REQUEST.captions for _ in range(2)]
    whole = generate(model, captions, [0, 1] * 5, HOW["sampler"], HOW["capture"])
    assert generations.caption == whole.caption and generations.seed.tolist() == whole.seed.tolist()
    assert (generations.images.int() - whole.images.int()).abs().max() <= 1
    assert len(parts_of(tmp_path / "a")) == 3
    check_complete(tmp_path / "a")


def test_collect_with_two_processes_equals_one(model, tmp_path):
    collect(model, REQUEST, PLAN, tmp_path / "one", **HOW)
    for rank in (1, 0):
        collect(model, REQUEST, PLAN, tmp_path / "two", rank=rank, world_size=2, **HOW)
    same(tmp_path / "one", tmp_path / "two")


def test_collect_interrupted_resumes(model, tmp_path):
    calls = []

    def annotate(generations):
        calls.append(generations.caption[::2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generations

    request = replace(REQUEST, annotators=(annotate,))

    with pytest.raises(KeyboardInterrupt):
        collect(model, request, PLAN, tmp_path / "torn", **HOW)
    (tmp_path / "torn" / "part=00001.unfinished").mkdir()  # what a kill in the middle of writing leaves
    assert len(parts_of(tmp_path / "torn")) == 1
    with pytest.raises(ValueError, match="torn' is incomplete: it has 1 of 3 parts"):
        check_complete(tmp_path / "torn")
    (tmp_path / "begun").mkdir()
    shutil.copy(tmp_path / "torn" / "collect.json", tmp_path / "begun")
    with pytest.raises(ValueError, match="begun' is incomplete: it has 0 of 3 parts. The same `afterglow collect` continues it."):
        check_complete(tmp_path / "begun")
    collect(model, request, PLAN, tmp_path / "torn", **HOW)
    assert calls == [("one", "two"), ("three", "four"), ("three", "four"), ("five",)]
    collect(model, REQUEST, PLAN, tmp_path / "whole", **HOW)
    same(tmp_path / "torn", tmp_path / "whole")


def test_collect_with_other_settings_is_refused_by_name(model, tmp_path):
    collect(model, REQUEST, PLAN, tmp_path / "a", metadata={"model": "x"}, **HOW)
    with pytest.raises(ValueError, match=r"started with other settings \(sampler.steps, metadata.model\)"):
        collect(model, REQUEST, PLAN, tmp_path / "a", Sampler(steps=3), CaptureConfig(), metadata={"model": "y"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="contains files that do not belong to a collection"):
        collect(model, REQUEST, PLAN, tmp_path / "full", **HOW)
    assert json.loads((tmp_path / "a" / "collect.json").read_text())["plan"]["num_images"] == 2
