"""What `accelerate launch` decided, in the words of a Lightning Trainer; the only file that knows of ranks and world sizes."""

import os
from typing import Any

import torch

PRECISION = {"no": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
ONE_OF_TWO = (
    "MASTER_PORT is set and WORLD_SIZE is missing: several processes were asked for and one was started; "
    "without a GPU, `accelerate launch --multi_gpu --num_processes 2 train.py` is the command that starts two."
)
HALVES = "fp16 was asked for on a CPU, which has no fast halves: say `--mixed_precision no` or `bf16`, or use a GPU."
UNSUPPORTED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def world_size() -> int:
    """Processes that the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def share() -> tuple[int, int]:
    """This process's share of a stream of samples: (first, stride)."""
    return int(os.environ.get("RANK", 0)), world_size()


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return share()[0] == 0


def trainer_defaults() -> dict[str, Any]:
    """The launcher's devices, nodes and precision as Trainer defaults; recipes never name them.

    Raises ValueError where fewer processes were started than asked for, or a launcher was chosen that is not supported.
    """
    for variable, name in UNSUPPORTED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ValueError(f"{name} was chosen in the accelerate configuration, and Afterglow trains with plain processes or DDP only.")
    if "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        raise ValueError(ONE_OF_TWO)
    # samples are split over processes by their number, so that Lightning must not split them again
    defaults: dict[str, Any] = {"use_distributed_sampler": False, "devices": 1}
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # plain `python train.py`
        return defaults
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    defaults |= {"devices": local, "num_nodes": world_size() // local, "precision": PRECISION[os.environ["ACCELERATE_MIXED_PRECISION"]]}
    return defaults | ({"accelerator": "cpu"} if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" else {})


def device() -> torch.device:
    """This process's device for commands without a Trainer."""
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" or not torch.cuda.is_available()
    return torch.device("cpu") if on_cpu else torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def dtype() -> torch.dtype:
    """The precision of weights that are only looked into, as the launcher decided. Raises ValueError for halves without a GPU."""
    wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if wanted == "fp16" and device().type == "cpu":
        raise ValueError(HALVES)
    return {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[wanted]


def check(trainer: Any) -> None:
    """Raises ValueError where the Trainer does not do what the launcher decided."""
    if trainer.world_size != world_size():
        raise ValueError(
            f"The launcher started {world_size()} process(es), and the Trainer was told to use {trainer.world_size}: "
            "leave devices and nodes to `accelerate launch --num_processes N`."
        )
    wanted = PRECISION.get(os.environ.get("ACCELERATE_MIXED_PRECISION", ""), trainer.precision)
    if wanted == "16-mixed" and trainer.strategy.root_device.type == "cpu":  # Lightning would take bf16 instead
        raise ValueError(HALVES)
    if trainer.precision != wanted:
        raise ValueError(
            f"The launcher decided on {wanted} and the Trainer was told {trainer.precision}: say `accelerate launch --mixed_precision`."
        )
