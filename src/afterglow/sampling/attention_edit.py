"""Changing cross-attention while a U-Net runs, in its own fused kernels (docs/methods.md#mitigations-inference)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from afterglow.sampling.attention import cross_attention_layers


@contextmanager
def edit_attention(unet: nn.Module, *, first_token: float, rows: slice, attended: Tensor) -> Iterator[None]:
    """A context in which the logits of token 0 are scaled and tokens are masked; batches of another size than N are not changed.

    A logit is q k / sqrt(D), so that scaling the key scales the logit. Rows of attention still sum to 1.

    Args:
        unet: the network.
        first_token: factor of the logits of token 0.
        rows: rows of the batch whose logits are scaled.
        attended: bool [N, L], the tokens that each row of a batch of N attends to.
    """
    modules = dict(unet.named_modules())

    def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if len(output) != len(attended):
            return output
        changed = output.clone()
        changed[rows, ..., 0, :] *= first_token
        return changed

    def mask(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if len(args[0]) != len(attended):
            return args, kwargs
        given = kwargs.get("encoder_attention_mask")
        return args, kwargs | {"encoder_attention_mask": attended if given is None else given.bool() & attended}

    keys = [modules[name] for name in cross_attention_layers(unet)]
    handles = [(attn.to_k if attn.norm_k is None else attn.norm_k).register_forward_hook(scale) for attn in keys]
    handles.append(unet.register_forward_pre_hook(mask, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
