"""The output of a text encoder, as the network receives it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextConditioning:
    """Output of a text encoder for B captions.

    Attributes:
        encoder_hidden_states: [B, L, D].
        attention_mask: bool [B, L], the positions that the U-Net may attend to.
        prompt_length: int64 [B], tokens up to and with the first end token (at most L).
    """

    encoder_hidden_states: Tensor
    attention_mask: Tensor
    prompt_length: Tensor

    def __getitem__(self, rows: Any) -> "TextConditioning":
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> "TextConditioning":
        send = torch.device(device).type != "cpu"  # what comes back is waited for
        return self._map(lambda tensor: tensor.to(device, non_blocking=send))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "TextConditioning":
        return TextConditioning(*(change(getattr(self, field.name)) for field in fields(self)))

    @staticmethod
    def cat(parts: Sequence["TextConditioning"]) -> "TextConditioning":
        return TextConditioning(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(TextConditioning)))
