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
        pooled: one state of each whole caption [B, P], perhaps padded with zeros; None for a network that takes none.
    """

    encoder_hidden_states: Tensor
    attention_mask: Tensor
    prompt_length: Tensor
    pooled: Tensor | None = None

    def __getitem__(self, rows: Any) -> "TextConditioning":
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> "TextConditioning":
        send = torch.device(device).type != "cpu"  # what comes back is waited for
        return self._map(lambda tensor: tensor.to(device, non_blocking=send))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "TextConditioning":
        changed: list[Any] = [None if (value := getattr(self, field.name)) is None else change(value) for field in fields(self)]
        return TextConditioning(*changed)

    @staticmethod
    def cat(parts: Sequence["TextConditioning"]) -> "TextConditioning":
        columns = zip(*([getattr(part, field.name) for field in fields(part)] for part in parts), strict=True)
        joined: list[Any] = [None if column[0] is None else torch.cat(column) for column in columns]
        return TextConditioning(*joined)
