import pytest
import torch

from afterglow.models.contrastive import ContrastivePair, ContrastiveSchedule, retrieval_accuracy, train_contrastive

CAPTIONS = ["a red hat", "waving hand", "blue cup", "sun", "old house", "green tree", "dog", "fish"]
PIXELS = torch.randint(256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make_pair() -> ContrastivePair:
    torch.manual_seed(0)
    return ContrastivePair(length=8, width=16)


def test_captions_find_their_images_after_training_and_not_before() -> None:
    pair = make_pair()
    assert retrieval_accuracy(pair, CAPTIONS, PIXELS) < 0.6
    train_contrastive(pair, CAPTIONS, PIXELS, ContrastiveSchedule(steps=20, batch_size=8, warmup_steps=5), seed=0)
    assert retrieval_accuracy(pair, CAPTIONS, PIXELS) == 1


def test_logits_are_the_cosines_of_the_first_end_token_over_the_temperature() -> None:
    pair = make_pair().eval()
    logits = pair(CAPTIONS[:3], PIXELS[:3])
    for row, caption in enumerate(CAPTIONS[:3]):
        ids = pair.text.tokenizer(caption)["input_ids"]
        end = pair.text.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]  # causal: without the padding behind it
        cosines = torch.cosine_similarity(pair.project(end)[None], pair.image(PIXELS[:3].float() / 127.5 - 1))
        assert logits[row].tolist() == pytest.approx((cosines / 0.07).tolist(), abs=1e-3)


def test_the_rate_rises_and_falls_to_nothing() -> None:
    schedule = ContrastiveSchedule(steps=100, learning_rate=1.0, warmup_steps=10)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[100] == pytest.approx(0) and max(rates) > 0.95 and rates[55] < rates[30]
