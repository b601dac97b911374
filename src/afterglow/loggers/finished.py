"""Results of commands after a training, logged to the W&B run that is bound to a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterglow.errors import AfterglowError
from afterglow.loggers.run_logger import RunLogger


def log_analysis(folder: Path, numbers: Mapping[str, float], images: Mapping[str, Path], tables: Mapping[str, Any] = {}) -> str:  # noqa: B006
    """Log numbers to the summary of a run folder's W&B run, and images next to them.

    Args:
        folder: run folder.
        numbers: values by W&B key.
        images: files by W&B key.
        tables: DataFrames by W&B key.

    Returns:
        how to view the result.

    Raises:
        AfterglowError: the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise AfterglowError(f"There is no run in '{folder}': config.yaml is missing.")
    return log_figures(folder, numbers, images, tables)


def log_pipeline(pipeline: Path, run: Path) -> str:
    """Log an exported pipeline to the W&B run of a run folder; return how to view it."""
    logger = RunLogger()
    logger.use_folder(run)
    logger.log_pipeline(pipeline, run)
    logger.finish()
    return logger.how_to_view()


def log_figures(folder: Path, numbers: Mapping[str, float], images: Mapping[str, Path], tables: Mapping[str, Any] = {}) -> str:  # noqa: B006
    """Log numbers, images and tables to the W&B run that is bound to a folder, a new run if there is none yet."""
    logger = RunLogger()
    logger.use_folder(folder)
    logger.summarize(dict(numbers))
    logger.log_files(images, tables)
    logger.finish()
    return logger.how_to_view()
