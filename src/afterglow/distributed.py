"""Processes, devices and precision as `accelerate launch` decided; the only file that reads them from the environment."""

import os
from typing import TYPE_CHECKING, Any

from afterglow.errors import AfterglowError

if TYPE_CHECKING:
    import torch

PRECISION = {"no": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
ONE_PROCESS_STARTED = (
    "accelerate was configured for several processes but started one (MASTER_PORT is set, WORLD_SIZE is missing); "
    "without a GPU, start two processes with `accelerate launch --multi_gpu --num_processes 2 train.py`."
)
FP16_ON_CPU = "fp16 is not supported on CPU; use --mixed_precision no or bf16."
UNSUPPORTED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def rank_and_world_size() -> tuple[int, int]:
    """Return the number of this process and the number of processes that the launcher started."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Return whether this process is the one that writes and prints."""
    return rank_and_world_size()[0] == 0


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error says that the connection to another process broke, which has ended or was killed."""
    import torch

    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)  # gloo has no class of errors


def trainer_defaults() -> dict[str, Any]:
    """Return the launcher's devices, nodes and precision as Trainer arguments; recipes never name them.

    Raises:
        AfterglowError: fewer processes were started than configured, or the launcher is not supported.
    """
    for variable, name in UNSUPPORTED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise AfterglowError(f"accelerate is configured for {name}; Afterglow supports plain processes and DDP only.")
    if "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        raise AfterglowError(ONE_PROCESS_STARTED)
    # samples are split over processes by their number, so that Lightning must not split them again
    defaults: dict[str, Any] = {"use_distributed_sampler": False, "devices": 1}
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # plain `python train.py`
        return defaults
    local, (_, world_size) = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), rank_and_world_size()
    defaults |= {"devices": local, "num_nodes": world_size // local, "precision": PRECISION[os.environ["ACCELERATE_MIXED_PRECISION"]]}
    return defaults | ({"accelerator": "cpu"} if _cpu_requested() else {})


def _cpu_requested() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def device() -> "torch.device":
    """Return this process's device, for commands without a Trainer."""
    import torch

    if _cpu_requested() or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def dtype() -> "torch.dtype":
    """Return the dtype of the weights in commands without a Trainer.

    Raises:
        AfterglowError: fp16 on a CPU.
    """
    import torch

    requested = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if requested == "fp16" and device().type == "cpu":
        raise AfterglowError(FP16_ON_CPU)
    return {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[requested]


def validate_trainer(trainer: Any, requested: Any = None) -> None:
    """Check that a Lightning Trainer uses the processes and the precision of the launcher.

    Args:
        trainer: the Trainer.
        requested: the precision among its options; it takes another one on a CPU.

    Raises:
        AfterglowError: the two disagree.
    """
    world_size = rank_and_world_size()[1]
    if trainer.world_size != world_size:
        raise AfterglowError(
            f"The launcher started {world_size} process(es) but the Trainer is set to use {trainer.world_size}: "
            "leave devices and nodes to `accelerate launch --num_processes N`."
        )
    own = requested if requested == "16-mixed" else trainer.precision
    precision = PRECISION.get(os.environ.get("ACCELERATE_MIXED_PRECISION", ""), own)
    if precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":  # Lightning would take bf16 instead
        raise AfterglowError(FP16_ON_CPU)
    if trainer.precision != precision:
        raise AfterglowError(
            f"The launcher chose precision {precision} but the Trainer is set to {trainer.precision}: "
            "set it with `accelerate launch --mixed_precision`."
        )
