"""Room 9: Weights & Biases; the only room that imports wandb."""

from afterglow.tracking.run_logger import RunLogger, log_analysis, log_figures

__all__ = ["RunLogger", "log_analysis", "log_figures"]
