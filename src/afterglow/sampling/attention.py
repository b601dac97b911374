"""Reading and editing attention while a U-Net runs; reading changes neither kernels nor numbers (docs/methods.md#attention-capture).

Shape suffixes: B batch, H heads, P pixels, L tokens, D channels of one head.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor, nn

from afterglow.errors import AfterglowError

Reduce = Callable[[Tensor], Any]
BLOCK_ORDER = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


def cross_attention_layers(unet: nn.Module) -> list[str]:
    """Names of the modules in which pixels attend to text, in the order in which they run: joint ones if the network has any."""
    joint = [name for name, module in unet.named_modules() if _is_joint(module)]
    return joint or _in_order(name for name, _ in unet.named_modules() if name.endswith("attn2"))


def _is_joint(module: nn.Module) -> bool:
    """Whether pixels and text are one sequence in a module, as in Stable Diffusion 3; others of this kind rotate queries and keys too."""
    return isinstance(module, Attention) and isinstance(module.processor, JointAttnProcessor2_0) and module.add_k_proj is not None


def self_attention_layers(unet: nn.Module) -> list[str]:
    """Names of the modules in which pixels attend to pixels, in the order in which they run; networks without text have them too."""
    return _in_order(name for name, module in unet.named_modules() if hasattr(module, "to_q") and not name.endswith("attn2"))


def _in_order(names: Iterator[str]) -> list[str]:
    return sorted(names, key=lambda name: BLOCK_ORDER.get(name.split(".")[0], 0))  # a transformer names its blocks in their order


def record_attention(
    unet: nn.Module, reduce: Reduce = lambda attention_BPL: attention_BPL, *, prefixes: Sequence[str] = ("",), rows: slice = slice(None)
) -> AbstractContextManager[dict[str, Any]]:
    """Record the attention to text while a network runs in the returned context.

    Queries and keys are taken where the module makes them, and only softmax(Q K^T / sqrt(D)) is computed in addition, one head at
    a time: the maps of all heads of one Stable Diffusion batch would be gigabytes.

    Args:
        unet: the network.
        reduce: applied to the attention [B, P, L] of each layer, averaged over heads; its rows sum to 1, or in a joint layer to less, since
            pixels attend to pixels there as well.
        prefixes: prefixes of the names of the recorded layers.
        rows: recorded rows of the batch (the conditional half).

    Returns:
        A context of {layer: reduced attention}, overwritten by each forward pass.

    Raises:
        AfterglowError: if the network has no such layer.
    """
    layers = cross_attention_layers(unet)
    chosen = [name for name in layers if name.startswith(tuple(prefixes))]
    if not chosen:
        reason = f"none of its layers {', '.join(layers)} matches" if layers else f"{type(unet).__name__} has no text cross-attention"
        raise AfterglowError(f"There is no end-token attention to record: {reason}.")
    return _record(unet, chosen, reduce, rows)


def record_self_attention(unet: nn.Module, reduce: Reduce, *, rows: slice = slice(None)) -> AbstractContextManager[dict[str, Any]]:
    """Record the network's attention [B, P, P] of pixels to pixels; arguments and errors as in `record_attention`."""
    layers = self_attention_layers(unet)
    if not layers:
        raise AfterglowError(f"There is no self-attention to record: {type(unet).__name__} has no self-attention.")
    return _record(unet, layers, reduce, rows)


@contextmanager
def _record(unet: nn.Module, layers: Sequence[str], reduce: Reduce, rows: slice) -> Iterator[dict[str, Any]]:
    maps: dict[str, Any] = {}
    handles = [handle for name in layers for handle in _add_hooks(unet.get_submodule(name), name, maps, reduce, rows)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _add_hooks(module: Any, name: str, maps: dict[str, Any], reduce: Reduce, rows: slice) -> list[Any]:
    projected: dict[nn.Module, Tensor] = {}

    def keep(projection: nn.Module, _inputs: Any, output: Tensor) -> None:
        projected[projection] = output.detach()[rows]

    @torch.no_grad()
    def after(attn: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        mask = kwargs.get("attention_mask")  # additive, [B, 1, L]
        query = _split_heads(projected.pop(attn.to_q), attn.heads, attn.norm_q)
        key = _split_heads(projected.pop(attn.to_k), attn.heads, attn.norm_k)
        text = slice(None)
        if joint:
            text = slice(key.shape[2], None)
            key = torch.cat([key, _split_heads(projected.pop(attn.add_k_proj), attn.heads, attn.norm_added_k)], dim=2)
        with torch.autocast(query.device.type, enabled=False):  # it would return the products to half precision
            maps[name] = reduce(_mean_over_heads(query, key, attn.scale, None if mask is None else mask[rows])[..., text])

    joint = _is_joint(module)
    projections = (module.to_q, module.to_k, module.add_k_proj) if joint else (module.to_q, module.to_k)
    return [*(projection.register_forward_hook(keep) for projection in projections), module.register_forward_hook(after, with_kwargs=True)]


def _split_heads(projected_BNC: Tensor, num_heads: int, norm: nn.Module | None) -> Tensor:
    """Queries or keys [B, N, H D] => [B, H, N, D], normalized if the module normalizes them."""
    projected_BHND = projected_BNC.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return projected_BHND if norm is None else norm(projected_BHND)


def _mean_over_heads(query_BHPD: Tensor, key_BHLD: Tensor, scale: float, bias_B1L: Tensor | None) -> Tensor:
    """softmax(scale Q K^T) averaged over heads, [B, P, L], always in float32."""
    total_BPL = torch.zeros((), device=query_BHPD.device)
    for query_BPD, key_BLD in zip(query_BHPD.unbind(1), key_BHLD.unbind(1), strict=True):
        # half-precision products would overflow (Stable Diffusion 2) and lose precision that fused attention keeps
        logits_BPL = torch.matmul(query_BPD.float(), key_BLD.float().transpose(-1, -2)) * scale
        total_BPL = total_BPL + (logits_BPL if bias_B1L is None else logits_BPL + bias_B1L).softmax(-1)
    return total_BPL / query_BHPD.shape[1]


@contextmanager
def edit_attention(unet: nn.Module, *, first_token: float, rows: slice, attended: Tensor) -> Iterator[None]:
    """Scale the attention logits of token 0 and mask tokens, in the fused kernels (docs/methods.md#mitigations-inference).

    A logit is q k / sqrt(D), so that scaling the key scales the logit. Rows of attention still sum to 1. Batches of another size
    than N are not changed.

    Args:
        unet: the network.
        first_token: factor of the logits of token 0.
        rows: rows of the batch whose logits are scaled.
        attended: bool [N, L], the tokens that each row of a batch of N attends to.
    """

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

    layers: list[Any] = [unet.get_submodule(name) for name in cross_attention_layers(unet)]
    handles = [(attn.to_k if attn.norm_k is None else attn.norm_k).register_forward_hook(scale) for attn in layers]
    handles.append(unet.register_forward_pre_hook(mask, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
