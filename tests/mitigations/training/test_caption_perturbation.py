from dataclasses import replace

import pytest
import torch

from afterglow.mitigations.training.caption_perturbation import CaptionPerturbation

WORDS = ("stone", "tree", "river", "cloud")
CAPTIONS = ["a red circle", "two dogs", ""] * 200
INDEX = list(range(600))


def perturbed(model, kind, share=1.0, captions=CAPTIONS, index=INDEX):
    others = {"two dogs": ["a pair of dogs", "dogs"]}
    return list(CaptionPerturbation(kind, share, paraphrases=others, vocabulary=WORDS).told(model, captions, index))


@pytest.mark.parametrize("kind", ["replaced", "words", "repeats"])
def test_all_none_or_a_share_of_the_captions_and_never_the_empty_one(heard, kind):
    assert perturbed(heard, kind, share=0) == CAPTIONS
    everything = perturbed(heard, kind)
    assert all((new == old) == (old == "") for new, old in zip(everything, CAPTIONS, strict=True))
    some = perturbed(heard, kind, share=0.2)
    changed = sum(new != old for new, old in zip(some, CAPTIONS, strict=True))
    assert 50 < changed < 110  # of 400
    assert set(some) - set(CAPTIONS) <= set(everything)  # a larger share perturbs the same samples in the same way, and more


def test_what_each_kind_does(heard):
    for new in perturbed(heard, "replaced", captions=["a red circle"] * 20, index=range(20)):
        assert len(new.split()) == 4 and set(new.split()) <= set(WORDS)
    for new in perturbed(heard, "words", captions=["a red circle"] * 20, index=range(20)):
        assert len(new.split()) == 5 and [word for word in new.split() if word not in WORDS] == ["a", "red", "circle"]
    for new in perturbed(heard, "repeats", captions=["a red circle"] * 20, index=range(20)):
        assert len(new.split()) == 5 and set(new.split()) == {"a", "red", "circle"}
    several = perturbed(heard, "several")
    assert set(several) == {"a red circle", "", "two dogs", "a pair of dogs", "dogs"}
    assert 40 < several.count("dogs") < 95  # of 200, a third each


@pytest.mark.parametrize("kind", ["replaced", "words", "repeats", "several", "noise"])
def test_it_depends_on_the_seed_and_the_number_of_the_sample_only(heard, small_captioned, kind):
    whole = perturbed(heard, kind, share=0.5)
    assert perturbed(heard, kind, 0.5, CAPTIONS[1::2], INDEX[1::2]) == whole[1::2]  # as another process draws them
    if kind != "noise":
        assert perturbed(small_captioned(seed=1), kind, share=0.5) != whole
        assert perturbed(heard, kind, 0.5, ["two dogs"] * 50, range(50)) != perturbed(heard, kind, 0.5, ["two dogs"] * 50, range(50, 100))
    how, condition = CaptionPerturbation("noise", strength=0.5), heard.condition(CAPTIONS[:9])
    noisy = how.heard(heard, condition, CAPTIONS[:9], range(9)).states
    again = how.heard(heard, condition[3:], CAPTIONS[3:9], range(3, 9)).states
    assert torch.equal(again, noisy[3:])


@torch.no_grad()
def test_noise_has_its_strength_and_leaves_the_empty_caption_alone(heard):
    condition, how = heard.condition(CAPTIONS), CaptionPerturbation("noise", strength=0.25)
    noise = how.heard(heard, condition, CAPTIONS, INDEX).states - condition.states
    told = torch.tensor([bool(caption) for caption in CAPTIONS])
    assert (noise[~told] == 0).all() and noise[told].std().item() == pytest.approx(0.25, rel=0.02) and abs(noise[told].mean()) < 0.005
    assert torch.equal(replace(how, strength=0.0).heard(heard, condition, CAPTIONS, INDEX).states, condition.states)
    assert replace(how, kind="words").heard(heard, condition, CAPTIONS, INDEX) is condition


def test_what_cannot_be_is_named():
    for kind, options, sentence in (
        ("prayers", {}, "replaced, words, repeats, several, noise, and not 'prayers'"),
        ("words", {"share": 1.5}, r"lies in \[0, 1\], and it is 1.5"),
        ("noise", {"strength": -1}, "a number from 0, and it is -1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            CaptionPerturbation(kind, **options)
