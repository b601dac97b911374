"""A pretend accelerator: CPU memory that claims another device, so that a machine without a GPU finds the mistakes that only a GPU shows.

`with pretend_accelerator() as device:` gives the device "pretend:0". On it

- an operation that mixes its tensors with CPU tensors raises DeviceMixError, as CUDA does (scalars and indices may come from the CPU),
- so does drawing on the device with a generator of the CPU; `.numpy()` of its tensors raises as well,
- every call that makes the host wait for the device (`item`, `tolist`, `bool`, `.cpu()`, `nonzero`, a `.to(device)` without
  `non_blocking`) is recorded in `device.syncs`.

The values are those of the CPU. `torch.func.jvp` does not work on it, and torch must know it before the first backward pass of a process.
"""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
MAY_MIX = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
SEND = {"aten::copy_", "aten::_to_copy"}  # from the memory of the host, which CUDA waits for unless `non_blocking`
WAIT = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2", "aten::is_nonzero"}


class DeviceMixError(RuntimeError):
    """An operation that fails on a GPU because its tensors or its generator are on different devices."""


class PretendTensor(Tensor):
    """A tensor of the pretend device; `raw` holds its values on the CPU."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> "PretendTensor":
        tensor: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.raw = raw
        return tensor

    def tolist(self) -> Any:
        _record("tolist")
        return self.raw.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendTensor({self.raw!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


class PretendDevice:
    """The device of one `with pretend_accelerator()`.

    Attributes:
        device: the device for `.to`.
        syncs: operation and place in the source of each call that waited for the device.
    """

    def __init__(self) -> None:
        self.device = torch.device(NAME, 0)
        self.syncs: list[tuple[str, str]] = []


class PretendAccelerator(Accelerator):
    """The pretend accelerator for Lightning's Trainer: `Trainer(accelerator=PretendAccelerator(), devices=1)`."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing to do."""

    def teardown(self) -> None:
        """Nothing to do."""

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        """The device numbers."""
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The devices."""
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        """One."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Inside `pretend_accelerator()`."""
        return bool(_current)

    @staticmethod
    def name() -> str:
        """Name of the accelerator."""
        return NAME


_current: list[PretendDevice] = []


@contextmanager
def pretend_accelerator() -> Iterator[PretendDevice]:
    """Make the device available; see the top of this file.

    Yields:
        The device and the record of what waited for it.

    Raises:
        RuntimeError: a backward pass has run in this process before the device was first used.
    """
    _register()
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a module's parameters become tensors of another class
    _current.append(PretendDevice())
    try:
        with _Mode():
            _check_backward()
            yield _current[-1]
    finally:
        _current.pop()
        torch.__future__.set_swap_module_params_on_conversion(swap)


def _check_backward() -> None:
    probe = torch.zeros(1).to(torch.device(NAME, 0)).requires_grad_()
    try:
        (probe * 1).sum().backward()
    except RuntimeError as error:  # torch sets up its queues of devices at the first backward pass
        raise RuntimeError("Use pretend_accelerator() before the first backward pass of the process.") from error


class _Mode(TorchDispatchMode):
    """Sends factories of the device, which have no tensor argument, to `_run`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        ours = _is_pretend(kwargs.get("device")) or any(isinstance(leaf, PretendTensor) for leaf in tree_leaves((args, kwargs)))
        return _run(func, args, kwargs) if ours else func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check the devices of an operation, compute it on the CPU, and wrap what stays on the device."""
    name, leaves = func._schema.name, tree_leaves((args, kwargs))
    inside = [leaf for leaf in leaves if isinstance(leaf, PretendTensor)]
    outside = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, PretendTensor) and leaf.dim() > 0]
    if inside and outside and name not in MAY_MIX:
        shapes = [tuple(leaf.shape) for leaf in outside]
        raise DeviceMixError(f"{name} got tensors of the CPU, {shapes}, and of the device, {[tuple(leaf.shape) for leaf in inside]}.")
    wanted, generator = kwargs.get("device"), kwargs.get("generator")
    stays = _is_pretend(wanted) if wanted is not None else isinstance(args[0], PretendTensor) if name == "aten::copy_" else bool(inside)
    if stays and generator is not None and generator.device.type == "cpu":
        raise DeviceMixError(f"{name} draws on the device with a generator of the CPU.")
    sends = name in SEND and stays and outside and not (kwargs.get("non_blocking") or name == "aten::copy_" and True in args[2:])
    if name in WAIT or sends or (inside and not stays and not kwargs.get("non_blocking")):
        _record(name.removeprefix("aten::"))
    raw_args, raw_kwargs = tree_map(lambda leaf: leaf.raw if isinstance(leaf, PretendTensor) else leaf, (args, kwargs))
    if _is_pretend(wanted):
        raw_kwargs["device"] = torch.device("cpu")
    result = func(*raw_args, **raw_kwargs)
    if any(value.alias_info is not None and value.alias_info.is_write for value in func._schema.returns):  # gives back what it was given
        return next((leaf for leaf in inside if leaf.raw is result), result if not stays else _wrap(result))
    return tree_map(_wrap, result) if stays else result


def _wrap(value: Any) -> Any:
    return PretendTensor(value) if isinstance(value, Tensor) and not isinstance(value, PretendTensor) else value


def _is_pretend(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _record(operation: str) -> None:
    """Note a wait with the innermost line outside of this file and of torch."""
    frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename and frame.filename != __file__]
    for device in _current:
        device.syncs.append((operation, f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"))


@functools.cache
def _register() -> torch.library.Library:
    """Register the backend with torch, once in a process."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    library = torch.library.Library("aten", "IMPL")

    def empty(
        size: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None, memory_format: Any = None
    ) -> Tensor:
        return PretendTensor(torch.empty(size, dtype=dtype, device="cpu", memory_format=memory_format or torch.contiguous_format))

    def empty_strided(size: Any, stride: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None) -> Tensor:
        return PretendTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        raws = [tensor.raw if isinstance(tensor, PretendTensor) else tensor for tensor in (source, target)]
        raws[1].copy_(raws[0])
        return target

    implementations: dict[str, Callable[..., Tensor]] = {
        "empty.memory_format": empty,
        "empty_strided": empty_strided,
        "_copy_from": copy_from,
    }
    for operation, implementation in implementations.items():
        library.impl(operation, implementation, "PrivateUse1")
    return library
