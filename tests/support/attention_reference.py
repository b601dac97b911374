"""Attention to text, written out from what went into the projections of a network's layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from afterglow.sampling.attention import cross_attention_layers


def written_out(network: nn.Module, run: Callable[[], Any], rows: slice, mask: Tensor | None = None) -> tuple[Any, dict[str, Tensor]]:
    """What `run` returns, and {layer: attention [B, P, L] of its last call of the network}.

    softmax(Q K^T / sqrt(D)) of the inputs of to_q and to_k and their weights, averaged over heads; mask: bool [B, L], attended tokens.
    """
    seen: dict[tuple[str, str], Tensor] = {}

    def keep(name: str, part: str) -> Callable[[nn.Linear, Any], None]:
        def hook(module: nn.Linear, args: Any) -> None:
            seen[name, part] = nn.functional.linear(args[0].detach(), module.weight, module.bias)[rows].detach()

        return hook

    names = cross_attention_layers(network)
    handles = [
        network.get_submodule(f"{name}.{part}").register_forward_pre_hook(keep(name, part)) for name in names for part in ("to_q", "to_k")
    ]
    result = run()
    for handle in handles:
        handle.remove()
    found = {}
    for name in names:
        query, key = (seen[name, part].unflatten(-1, (network.get_submodule(name).heads, -1)) for part in ("to_q", "to_k"))
        logits = torch.einsum("nphd,nkhd->nhpk", query, key).div(query.shape[-1] ** 0.5)
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None], -torch.inf)
        found[name] = logits.softmax(-1).mean(1)
    return result, found
