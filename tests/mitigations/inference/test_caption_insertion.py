import json

import pytest

from afterglow.mitigations.inference.caption_insertion import CaptionInsertion, insert_words, read_paraphrases, vocabulary_of
from afterglow.testing.tiny_sd import clip_tokenizer


def left(words, taken):
    rest = list(words)
    for word in taken:
        rest.remove(word)
    return rest


@pytest.mark.parametrize("kind", ["words", "numbers", "repeats"])
def test_so_many_words_more_and_the_captions_own_in_their_order(kind):
    how = CaptionInsertion(kind, 3)
    said = insert_words("a red circle", how, 0, ["tree", "stone"]).split()
    new = left(said, ["a", "red", "circle"])
    assert len(new) == 3 and insert_words("a red circle", how, 0, ["tree", "stone"]).split() == said
    allowed = {
        "words": {"tree", "stone"}.__contains__,
        "numbers": lambda word: 0 <= int(word) < 10**6,
        "repeats": ["a", "red", "circle"].__contains__,
    }
    assert all(allowed[kind](word) for word in new)
    if kind != "repeats":
        assert [word for word in said if word in ("a", "red", "circle")] == ["a", "red", "circle"]
    others = {insert_words("a red circle", how, seed, ["tree", "stone"]) for seed in range(8)}
    assert len(others) > 4  # other seeds, other words or places


def test_none_leaves_the_caption_as_it_is_spaces_too():
    assert insert_words("a  dog ", CaptionInsertion("numbers", 0), 0) == "a  dog "
    assert (
        insert_words("", CaptionInsertion("repeats", 2), 0) == "" and len(insert_words("", CaptionInsertion("numbers", 2), 0).split()) == 2
    )
    with pytest.raises(ValueError, match="words, numbers, repeats, not 'prayers'"):
        CaptionInsertion("prayers", 1)


def test_whole_words_of_both_kinds_of_tokenizers(heard):
    for owner in (heard, type("Holder", (), {"tokenizer": clip_tokenizer()})):
        words = vocabulary_of(owner)
        assert len(words) > 5000 and {"dog", "house", "red"} <= set(words) and words == sorted(words)
        assert not any("#" in word or "<" in word or len(word) < 3 for word in words[::100])


def test_the_model_gets_the_new_caption_and_its_length(heard, setup):
    changed = CaptionInsertion("numbers", 1)(heard, setup)
    assert all(new != old for new, old in zip(changed.captions, setup.captions, strict=True)) and changed.seeds == setup.seeds
    said = heard.condition(list(changed.captions))
    assert (
        changed.condition.prompt_length[3:].tolist() == said.prompt_length.tolist()
        and (changed.condition.encoder_hidden_states[:3] == setup.condition.encoder_hidden_states[:3]).all()
    )


def test_read_paraphrases_wrong_line_is_named(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"caption": "a", "paraphrases": ["b", "c"]}) + "\n")
    assert read_paraphrases(file) == {"a": ["b", "c"]}
    file.write_text('{"caption": "a"}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_paraphrases(file)
    file.write_text('{"caption": "a", "paraphrases": "b"}\n')
    with pytest.raises(ValueError, match="line 1: paraphrases must be a list"):
        read_paraphrases(file)
    with pytest.raises(ValueError, match="There is no file of paraphrases"):
        read_paraphrases(tmp_path / "none")
