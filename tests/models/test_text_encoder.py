import copy
from collections import Counter

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from afterglow.models import text_encoder
from afterglow.models.text_encoder import PACKAGED, TextEncoder, find_model_folder

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CAPTIONS = ["a red hat", "", "waving hand sign", "a red hat"]
LONG = "a very long caption that never comes to an end of all the things that it wants to say"


@pytest.fixture(scope="module")
def frozen() -> TextEncoder:
    return TextEncoder(PACKAGED, length=12)


@pytest.fixture(scope="module")
def plain() -> tuple[PreTrainedModel, object]:
    folder = find_model_folder(PACKAGED)
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_frozen_states_are_those_of_the_plain_encoder(frozen: TextEncoder, plain: tuple) -> None:
    model, tokenizer = plain
    states, lengths = frozen(CAPTIONS)
    assert states.shape == (4, 12, 384) and not states.requires_grad
    for row, caption in enumerate(CAPTIONS):
        tokens = tokenizer([caption], padding="max_length", max_length=12, truncation=True, return_tensors="pt")
        with torch.no_grad():
            wanted = model(**tokens).last_hidden_state[0]
        torch.testing.assert_close(states[row], wanted, rtol=1e-4, atol=5e-5)  # kernels round by the size of the batch and by the CPU
        assert lengths[row] == len(tokenizer(caption)["input_ids"])


def test_the_cache_changes_no_state_and_saves_the_work(monkeypatch: pytest.MonkeyPatch, frozen: TextEncoder) -> None:
    asked: Counter[int] = Counter()
    original = text_encoder.token_embeddings
    monkeypatch.setattr(
        text_encoder,
        "token_embeddings",
        lambda encoder, tokens, **how: asked.update(n=len(tokens["input_ids"])) or original(encoder, tokens, **how),
    )
    frozen.frozen.recent.clear()
    first = frozen(CAPTIONS)[0]
    assert asked["n"] == 3  # one caption stands there twice
    assert torch.equal(frozen(CAPTIONS[::-1])[0], first.flip(0)) and asked["n"] == 3
    mixed = frozen(["a blue cup", *CAPTIONS])[0]
    assert torch.equal(mixed[1:], first) and asked["n"] == 4
    monkeypatch.setattr(text_encoder, "CACHED_CAPTIONS", 2)
    assert torch.equal(frozen(CAPTIONS)[0], first) and len(frozen.frozen.recent) == 2
    assert torch.equal(frozen(CAPTIONS)[0], first)


def test_a_cut_caption_still_ends_in_the_end_token_and_is_counted(frozen: TextEncoder) -> None:
    tokens = frozen.tokenize([LONG, "a hat"])
    end = frozen.tokenizer.sep_token_id
    assert tokens["input_ids"].shape == (2, 12) and tokens["input_ids"][0, -1] == end
    assert frozen([LONG])[1].tolist() == [12]
    assert frozen.num_cut([LONG, "a hat", "", LONG + " and more"]) == 2 and frozen.num_cut([]) == 0


@pytest.mark.parametrize("source", [PACKAGED, TINY])
def test_the_length_counts_the_beginning_and_the_first_end_token(source: object) -> None:
    encoder = TextEncoder(source, length=12)  # type: ignore[arg-type]
    begin, end = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id
    captions = ["", "hat", "a red hat", LONG]
    ids, lengths = encoder.tokenize(captions)["input_ids"].tolist(), encoder(captions)[1].tolist()
    for row, length in zip(ids, lengths, strict=True):
        assert row[0] == begin and row.index(end) + 1 == length
    assert lengths == [2, 3, 5, 12]


def test_a_frozen_encoder_is_neither_seen_nor_copied_nor_trained(frozen: TextEncoder) -> None:
    assert not frozen.state_dict() and not list(frozen.parameters()) and not list(frozen.modules())[1:]
    holder = nn.Sequential(frozen)
    copied = copy.deepcopy(holder)
    assert copied[0] is not frozen and copied[0].encoder is frozen.encoder
    assert not holder.train()[0].encoder.training and not any(p.requires_grad for p in frozen.encoder.parameters())


def test_a_trained_encoder_is_copied_averaged_and_saved() -> None:
    encoder = TextEncoder(TINY, length=12)
    copied = copy.deepcopy(encoder)
    assert torch.equal(copied(CAPTIONS)[0], encoder(CAPTIONS)[0])
    with torch.no_grad():
        next(copied.parameters()).add_(1)
    assert not torch.equal(copied(CAPTIONS)[0], encoder(CAPTIONS)[0])
    assert set(encoder.state_dict()) == set(copied.state_dict()) and all(name.startswith("model.") for name in encoder.state_dict())
    encoder(CAPTIONS)[0].sum().backward()
    assert sum(p.grad.abs().sum() for p in encoder.parameters() if p.grad is not None) > 0
    assert encoder.width == 16 and encoder.model.config.vocab_size == len(encoder.tokenizer)
    assert encoder.model.config.eos_token_id == encoder.tokenizer.sep_token_id


def test_a_trained_encoder_has_the_conventions_of_stable_diffusion() -> None:
    """BOS first and free of the caption, padding of end tokens that is attended: CLIP's own call on the padded ids, without a mask."""
    encoder = TextEncoder(TINY, length=12).eval()
    begin, end = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id
    states, lengths = encoder(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        words = encoder.tokenizer(caption, add_special_tokens=False)["input_ids"]
        ids = [begin, *words] + [end] * (12 - 1 - len(words))
        assert encoder.tokenize([caption])["input_ids"][0].tolist() == ids and lengths[row] == len(words) + 2
        assert torch.allclose(states[row], encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0], atol=1e-5)
    assert torch.allclose(states[:, 0], states[:1, 0], atol=1e-5) and not torch.allclose(states[0, -1], states[2, -1], atol=1e-2)


@pytest.mark.parametrize("name", ["nowhere", "owner/name", "json", "/dev/null"])
def test_a_name_that_leads_nowhere_is_refused_in_one_sentence(name: str) -> None:
    for arguments in ((name,), (TINY, name)):
        with pytest.raises(ValueError, match=f"No text encoder or tokenizer in '{name}': give a folder, a hub id"):
            TextEncoder(*arguments)  # type: ignore[arg-type]


def test_a_folder_and_a_hub_id_keep_their_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert find_model_folder(str(tmp_path)) == str(tmp_path) and find_model_folder("owner/name") == "owner/name"
    assert find_model_folder(PACKAGED).endswith("model") and find_model_folder("no_such_package") == "no_such_package"
