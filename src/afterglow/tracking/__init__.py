"""Room 9: Weights & Biases; the only room that imports wandb."""

from afterglow.tracking.run_logger import RunLogger

__all__ = ["RunLogger"]
