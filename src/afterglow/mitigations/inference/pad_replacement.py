"""Padding becomes "!" and the end token is masked (Kim and No 2026; docs/methods.md#pad-replacement)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from afterglow.errors import AfterglowError
from afterglow.models.denoiser import Denoiser
from afterglow.models.pipelines import tokenize
from afterglow.models.text_encoder import FrozenTextEncoder, token_embeddings
from afterglow.sampling.attention import edit_attention
from afterglow.sampling.setup import SamplingSetup

PAD = "!"


@dataclass(frozen=True)
class PadReplacement:
    """Encodes captions, the empty one too, with "!" in place of the padding, and masks the first end token in all layers.

    In Stable Diffusion padding consists of end tokens, whose states copy that of the first one.

    Args:
        active: False encodes again with the tokenizer's own padding and masks nothing.
    """

    active: bool = True

    @torch.no_grad()
    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        condition = setup.condition
        assert condition is not None
        lengths, positions = condition.prompt_length, torch.arange(condition.encoder_hidden_states.shape[1], device=model.device)
        states = _encode(model, ["", *setup.captions], PAD if self.active else None)
        num = len(setup.captions)
        both = states[[0] * num + list(range(1, num + 1))].to(condition.encoder_hidden_states)
        attended = (positions != lengths.to(model.device)[:, None] - 1) | (not self.active)
        context = lambda: edit_attention(model.unet, first_token=1.0, rows=setup.cond_slice, attended=attended)  # noqa: E731
        return replace(setup, condition=replace(condition, encoder_hidden_states=both), attention_context=context)


def _encode(model: Any, captions: list[str], pad: str | None) -> Tensor:
    """Token embeddings [B, L, D] of captions with another padding token; AfterglowError if the model has not one text encoder."""
    text: Any = getattr(model, "text", None)
    frozen = text if isinstance(text, FrozenTextEncoder) else getattr(text, "frozen", None)
    module: Any = getattr(text, "model", None) if frozen is None else frozen.module
    if isinstance(module, nn.ModuleList):  # of a pipeline
        module = module[0] if len(module) == 1 else None
    if module is None:
        raise AfterglowError(f"pads_replaced needs a model with one text encoder, which {type(model).__name__} does not have.")
    tokens = text.tokenize(captions) if hasattr(text, "tokenize") else tokenize(model.tokenizer, captions)
    if pad is not None:
        number = model.tokenizer.convert_tokens_to_ids(pad)
        if number in (None, model.tokenizer.unk_token_id) and model.tokenizer.unk_token != pad:
            raise AfterglowError(f"pads_replaced: the tokenizer has no token '{pad}'.")
        tokens["input_ids"] = torch.where(tokens["attention_mask"].bool(), tokens["input_ids"], number)
    device = next(module.parameters()).device
    tokens = {name: value.to(device) for name, value in tokens.items()}
    return token_embeddings(module, tokens, mask_padding=frozen is not None and frozen.mask_padding)
