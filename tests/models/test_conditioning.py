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
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
