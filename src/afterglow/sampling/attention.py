"""Reading cross-attention while a U-Net runs (METHODS (a)); the network's kernels, numbers and gradients stay as they are.

Shape suffixes: B batch, H heads, P pixels, L tokens, D channels of one head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def cross_attention_layers(unet: nn.Module) -> list[str]:
    """Names of the modules in which pixels attend to text, in the order in which they run: down, middle, up."""
    names = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    return sorted(names, key=lambda name: ("down_blocks", "mid_block", "up_blocks").index(name.split(".")[0]))


def self_attention_layers(unet: nn.Module) -> list[str]:
    """Names of the modules in which pixels attend to pixels; also of networks without text."""
    found = [name for name, module in unet.named_modules() if hasattr(module, "to_q") and not name.endswith("attn2")]
    return sorted(found, key=lambda name: ("down_blocks", "mid_block", "up_blocks").index(name.split(".")[0]))


@contextmanager
def record_attention(
    unet: nn.Module,
    reduce: Callable[[Tensor], Any] = lambda attention_BPL: attention_BPL,
    *,
    layers: Callable[[str], bool] = lambda name: True,
    rows: slice = slice(None),
    to_pixels: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield {layer: reduce(attention [B, P, L], averaged over heads)}, overwritten by each forward pass inside the block.

    `with record(unet) as maps: unet(...)`; `layers` chooses modules by name, `rows` the rows of the batch (the conditional half);
    to_pixels: self-attention [B, P, P] instead of attention to text.
    Queries and keys are taken where the module makes them, and only softmax(Q K^T / sqrt(D)) is computed beside it, one
    head at a time: the maps of all heads of one SD batch would be gigabytes. A block that gradient checkpointing
    runs twice writes the same layer twice. Raises ValueError for a network without text attention, or without a chosen layer.
    """
    found = self_attention_layers(unet) if to_pixels else cross_attention_layers(unet)
    chosen = [name for name in found if layers(name)]
    if not chosen:
        kind = "self-attention" if to_pixels else "text cross-attention"
        what = f"none of its layers {', '.join(found)} was chosen" if found else f"{type(unet).__name__} has no {kind}"
        raise ValueError(f"There is no {'self-' if to_pixels else 'end-token '}attention to record: {what}.")
    maps: dict[str, Any] = {}
    modules = dict(unet.named_modules())
    handles = [handle for name in chosen for handle in _watch(modules[name], name, maps, reduce, rows)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _watch(module: Any, name: str, maps: dict[str, Any], reduce: Callable[[Tensor], Any], rows: slice) -> list[Any]:
    seen: dict[str, Tensor] = {}

    def keep(projection: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen[projection] = output.detach()[rows]

        return hook

    @torch.no_grad()
    def after(attn: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        mask = kwargs.get("attention_mask")  # additive, [B, 1, L]
        query, key = split_heads(seen.pop("query"), attn.heads, attn.norm_q), split_heads(seen.pop("key"), attn.heads, attn.norm_k)
        with torch.autocast(query.device.type, enabled=False):  # which would bring the products back to halves
            maps[name] = reduce(mean_over_heads(query, key, attn.scale, None if mask is None else mask[rows]))

    return [
        module.to_q.register_forward_hook(keep("query")),
        module.to_k.register_forward_hook(keep("key")),
        module.register_forward_hook(after, with_kwargs=True),
    ]


def split_heads(projected_BNC: Tensor, num_heads: int, norm: nn.Module | None) -> Tensor:
    """Queries or keys [B, N, H D] => [B, H, N, D], normalized where the module does it."""
    projected_BHND = projected_BNC.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return projected_BHND if norm is None else norm(projected_BHND)


def mean_over_heads(query_BHPD: Tensor, key_BHLD: Tensor, scale: float, bias_B1L: Tensor | None) -> Tensor:
    """softmax(scale Q K^T) averaged over heads, [B, P, L], in float32 whatever the model's precision."""
    total_BPL = torch.zeros((), device=query_BHPD.device)
    for query_BPD, key_BLD in zip(query_BHPD.unbind(1), key_BHLD.unbind(1), strict=True):
        # products of halves would leave their range (Stable Diffusion 2), and lose what fused attention keeps
        logits_BPL = torch.matmul(query_BPD.float(), key_BLD.float().transpose(-1, -2)) * scale
        total_BPL = total_BPL + (logits_BPL if bias_B1L is None else logits_BPL + bias_B1L).softmax(-1)
    return total_BPL / query_BHPD.shape[1]
