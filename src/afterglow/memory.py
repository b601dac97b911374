"""The memory of the host and of devices."""

import ctypes
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
FREE, LARGEST = 2**31 - 1, 2**30  # bytes of free memory at the top of the heap, and of a block in the heap
OTHER_DEVICES = 2**32  # bytes taken as free on a device that does not say


def keep_freed_memory() -> None:
    """Let the GNU C library keep the memory of freed tensors for the next ones; elsewhere nothing changes.

    It would give every large block back to the system at once, which fills the next one with zeros, page by page: on a CPU a tenth of a
    training step of small images, and more of larger ones.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, FREE)


def free_memory(device: "torch.device") -> int:
    """Bytes that are free on a GPU; OTHER_DEVICES on a device that does not say."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else OTHER_DEVICES
