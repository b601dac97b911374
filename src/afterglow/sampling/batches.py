"""How many generations are sampled at once."""

import weakref

import torch
from torch import Tensor, nn

from afterglow.memory import free_memory
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.guidance import predict_both
from afterglow.sampling.setup import encode_cfg_batch

SHARE, MOST = 0.5, 512  # of a device's free memory, the rest is for what is kept of a pass; generations
CPU_BYTES, CPU_MOST = 2**31, 32  # the same on every machine, so that runs are equal bit for bit; larger batches leave the cache


def fitting_batch(model: Denoiser) -> int:
    """The largest power of two of generations whose activations, with both halves of the guidance, fit.

    On a CPU into 2 GiB, and at most 32; elsewhere into half of the free memory, and at most 512.
    """
    cpu = model.device.type == "cpu"
    free, most = (CPU_BYTES, CPU_MOST) if cpu else (int(SHARE * free_memory(model.device)), MOST)
    return 1 << max(1, min(free // activation_bytes(model), most)).bit_length() - 1


@torch.no_grad()
def activation_bytes(model: Denoiser) -> int:
    """Most bytes of the network's layers that exist at a time while it computes one generation; runs the network once."""
    live: dict[int, int] = {}  # bytes of each output that exists
    peak = 0

    def add(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal peak
        if isinstance(output, Tensor) and id(output) not in live:
            live[id(output)] = output.numel() * output.element_size()
            weakref.finalize(output, live.pop, id(output))
            peak = max(peak, sum(live.values()))

    handles = [module.register_forward_hook(add) for module in model.unet.modules()]
    try:
        noisy = torch.zeros(1, *model.latent_shape(), device=model.device, dtype=model.dtype)
        predict_both(model, encode_cfg_batch(model, [""]), noisy, torch.tensor(0))
    finally:
        for handle in handles:
            handle.remove()
    return peak
