import json

import pytest
import torch

from afterglow.evaluation.store import SEED_RULES, GenerationPlan, collect
from afterglow.generations import Generations, parts_of
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

ORDER = GenerationPlan(["one", "two", "three", "four", "five"], num_images=2, prompts_per_part=2)
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


def test_a_collection_is_what_one_call_would_generate(model, tmp_path):
    collect(model, ORDER, tmp_path / "a", **HOW)
    generations = Generations.cat([Generations.load(part) for part in parts_of(tmp_path / "a")])
    captions = [caption for caption in ORDER.captions for _ in range(2)]
    whole = generate(model, captions, [0, 1] * 5, HOW["sampler"], HOW["capture"])
    assert generations.caption == whole.caption and generations.seed.tolist() == whole.seed.tolist()
    assert (generations.images.int() - whole.images.int()).abs().max() <= 1
    assert len(parts_of(tmp_path / "a")) == 3


def test_two_processes_write_what_one_writes(model, tmp_path):
    collect(model, ORDER, tmp_path / "one", **HOW)
    for first in (1, 0):
        collect(model, ORDER, tmp_path / "two", share=(first, 2), **HOW)
    same(tmp_path / "one", tmp_path / "two")


def test_a_killed_collection_goes_on_where_it_stood(model, tmp_path):
    calls = []

    def finish(generations, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generations

    with pytest.raises(KeyboardInterrupt):
        collect(model, ORDER, tmp_path / "torn", finish=finish, **HOW)
    (tmp_path / "torn" / "part=00001.unfinished").mkdir()  # what a kill in the middle of writing leaves
    assert len(parts_of(tmp_path / "torn")) == 1
    collect(model, ORDER, tmp_path / "torn", finish=finish, **HOW)
    assert calls == [[0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3], [4, 4]]
    collect(model, ORDER, tmp_path / "whole", **HOW)
    same(tmp_path / "torn", tmp_path / "whole")


def test_other_settings_are_refused_by_name(model, tmp_path):
    collect(model, ORDER, tmp_path / "a", about={"model": "x"}, **HOW)
    with pytest.raises(ValueError, match=r"begun with other settings \(sampler.steps, about.model\)"):
        collect(model, ORDER, tmp_path / "a", Sampler(steps=3), CaptureConfig(), about={"model": "y"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="holds other things"):
        collect(model, ORDER, tmp_path / "full", **HOW)
    assert json.loads((tmp_path / "a" / "collect.json").read_text())["order"]["num_images"] == 2


def test_seed_rules():
    assert [SEED_RULES["image"](5, prompt, 1) for prompt in range(3)] == [6, 6, 6]
    assert [SEED_RULES["prompt"](5, prompt, 0) for prompt in range(3)] == [5, 6, 7]
    assert [SEED_RULES["constant"](42, prompt, 0) for prompt in range(3)] == [42, 42, 42]
    for rule in SEED_RULES:
        seeds = GenerationPlan(["a", "b"], num_images=3, seed_rule=rule).seeds(1)
        assert len(set(seeds)) == 3
    for wrong in ({"seed_rule": "line"}, {"num_images": 0}, {"prompts_per_part": 0}):
        with pytest.raises(ValueError):
            GenerationPlan(["a"], **wrong)
