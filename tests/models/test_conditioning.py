from dataclasses import replace

import torch

from afterglow.models.conditioning import TextConditioning


def make(count: int, seed: int) -> TextConditioning:
    generator = torch.Generator().manual_seed(seed)
    return TextConditioning(
        torch.randn(count, 4, 3, generator=generator), torch.ones(count, 4, dtype=torch.bool), torch.arange(1, count + 1)
    )


def test_cat_and_getitem_keep_rows_of_all_fields_together() -> None:
    first, second = make(2, 0), make(3, 1)
    both = TextConditioning.cat([first, second])
    rows = both[[1, 4]]
    assert torch.equal(rows.encoder_hidden_states, torch.stack([first.encoder_hidden_states[1], second.encoder_hidden_states[2]]))
    assert rows.prompt_length.tolist() == [2, 3] and rows.attention_mask.shape == (2, 4)


def test_to_moves_every_field() -> None:
    moved = make(2, 0).to("meta")
    assert {tensor.device.type for tensor in vars(moved).values() if tensor is not None} == {"meta"}


def test_a_pooled_state_goes_along():
    pooled = replace(make(2, 0), pooled=torch.arange(6.0).view(2, 3))
    assert torch.equal(TextConditioning.cat([pooled, pooled])[1:3].pooled, torch.tensor([[3.0, 4, 5], [0, 1, 2]]))
    assert make(2, 0)[:1].pooled is None and pooled.to("meta").pooled.device.type == "meta"
