import pytest
import torch

from afterglow.mitigations.training import CaptionWordRepetition, GaussianNoise, MultipleCaptions, RandomCaption, RandomTokens

WORDS = ("stone", "tree", "river", "cloud")
CAPTIONS = ["a red circle", "two dogs", ""] * 200
INDEX = list(range(600))
BY_FRACTION = (RandomCaption, RandomTokens, CaptionWordRepetition)


def perturb(model, cls, fraction=1.0, captions=CAPTIONS, index=INDEX):
    mitigation = cls(fraction)
    mitigation.vocabulary = WORDS
    return list(mitigation.perturb_captions(model, captions, index))


@pytest.fixture
def multiple(tmp_path):
    (tmp_path / "paraphrases.jsonl").write_text('{"caption": "two dogs", "paraphrases": ["a pair of dogs", "dogs"]}\n')
    return MultipleCaptions(str(tmp_path / "paraphrases.jsonl"))


@pytest.mark.parametrize("cls", BY_FRACTION)
def test_perturb_captions_changes_fraction_and_never_the_empty_caption(heard, cls):
    assert perturb(heard, cls, fraction=0) == CAPTIONS
    everything = perturb(heard, cls)
    assert all((new == old) == (old == "") for new, old in zip(everything, CAPTIONS, strict=True))
    some = perturb(heard, cls, fraction=0.2)
    changed = sum(new != old for new, old in zip(some, CAPTIONS, strict=True))
    assert 50 < changed < 110  # of 400
    assert set(some) - set(CAPTIONS) <= set(everything)  # a larger fraction perturbs the same samples in the same way, and more


def test_perturb_captions_each_class_inserts_its_words(heard, multiple):
    for new in perturb(heard, RandomCaption, captions=["a red circle"] * 20, index=range(20)):
        assert len(new.split()) == 4 and set(new.split()) <= set(WORDS)
    for new in perturb(heard, RandomTokens, captions=["a red circle"] * 20, index=range(20)):
        assert len(new.split()) == 5 and [word for word in new.split() if word not in WORDS] == ["a", "red", "circle"]
    for new in perturb(heard, CaptionWordRepetition, captions=["a red circle"] * 20, index=range(20)):
        assert len(new.split()) == 5 and set(new.split()) == {"a", "red", "circle"}
    captions = multiple.perturb_captions(heard, CAPTIONS, INDEX)
    assert set(captions) == {"a red circle", "", "two dogs", "a pair of dogs", "dogs"}
    assert 40 < captions.count("dogs") < 95  # of 200, a third each


@pytest.mark.parametrize("cls", BY_FRACTION)
def test_perturb_captions_depends_on_seed_and_index_only(heard, small_captioned, cls):
    whole = perturb(heard, cls, fraction=0.5)
    assert perturb(heard, cls, 0.5, CAPTIONS[1::2], INDEX[1::2]) == whole[1::2]  # as another process draws them
    assert perturb(small_captioned(seed=1), cls, fraction=0.5) != whole
    assert perturb(heard, cls, 0.5, ["two dogs"] * 50, range(50)) != perturb(heard, cls, 0.5, ["two dogs"] * 50, range(50, 100))


def test_multiple_captions_depends_on_seed_and_index_only(heard, small_captioned, multiple):
    whole = multiple.perturb_captions(heard, CAPTIONS, INDEX)
    assert multiple.perturb_captions(heard, CAPTIONS[1::2], INDEX[1::2]) == whole[1::2]
    assert multiple.perturb_captions(small_captioned(seed=1), CAPTIONS, INDEX) != whole


@torch.no_grad()
def test_gaussian_noise_has_its_std_and_leaves_the_empty_caption_unchanged(heard):
    condition = heard.condition(CAPTIONS)
    noisy = GaussianNoise(0.25).perturb_embeddings(heard, condition, CAPTIONS, INDEX).encoder_hidden_states
    noise = noisy - condition.encoder_hidden_states
    captioned = torch.tensor([bool(caption) for caption in CAPTIONS])
    assert (noise[~captioned] == 0).all() and noise[captioned].std().item() == pytest.approx(0.25, rel=0.02)
    assert abs(noise[captioned].mean()) < 0.005
    again = GaussianNoise(0.25).perturb_embeddings(heard, condition[3:9], CAPTIONS[3:9], INDEX[3:9]).encoder_hidden_states
    assert torch.equal(again, noisy[3:9])
    assert torch.equal(
        GaussianNoise(0.0).perturb_embeddings(heard, condition, CAPTIONS, INDEX).encoder_hidden_states, condition.encoder_hidden_states
    )
    assert RandomTokens().perturb_embeddings(heard, condition, CAPTIONS, INDEX) is condition


def test_setup_takes_vocabulary_of_the_tokenizer_and_checks_paraphrases(heard, multiple):
    tokens = RandomTokens()
    tokens.setup(heard, ["a"])
    assert "dog" in tokens.vocabulary
    multiple.setup(heard, ["a", "two dogs"])
    with pytest.raises(ValueError, match="no caption of the training set"):
        multiple.setup(heard, ["a", "b"])


def test_invalid_options_raise_errors_that_name_them():
    with pytest.raises(ValueError, match=r"RandomTokens: fraction must lie in \[0, 1\], not 1.5"):
        RandomTokens(1.5)
    with pytest.raises(ValueError, match="GaussianNoise: std must be a finite number from 0, not -1"):
        GaussianNoise(-1)
    with pytest.raises(ValueError, match="nowhere.jsonl"):
        MultipleCaptions("nowhere.jsonl")
