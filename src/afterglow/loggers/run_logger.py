"""The W&B run of a run folder: offline if there is no key or network; a failure of W&B never ends a training."""

import logging
import os
import socket
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from afterglow.errors import AfterglowError, did_you_mean

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # values of WANDB_MODE that W&B accepts
MAX_IMAGES = 108  # W&B keeps no more for one key and step
SMALLEST_SIDE = 128  # smaller images are upscaled so that they can be seen in W&B


def never_fatal(method: Callable[..., None]) -> Callable[..., None]:
    """Report a failure of W&B once; the training continues and writes its own files."""

    @wraps(method)
    def guarded(self: "RunLogger", *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # whatever W&B raises, the numbers are in measurements.parquet too
            if not self.failed:
                log.warning("W&B failed (%s: %s); training continues and writes its own files.", type(error).__name__, error)
            self.failed = True

    return guarded


class RunLogger(WandbLogger):
    """A WandbLogger whose run id lies in the run folder, so that a resumed training continues the same run.

    Only the main process has a W&B run (Lightning's own logger takes care of it).

    Args:
        project: W&B project; null: the environment variable WANDB_PROJECT, otherwise "afterglow".
        entity: W&B user or team; null: the environment variable WANDB_ENTITY, otherwise your default entity.
        tags: tags of the run.

    Raises:
        AfterglowError: WANDB_MODE is not a mode of W&B.
    """

    def __init__(self, project: str | None = None, entity: str | None = None, tags: Sequence[str] = ()) -> None:
        mode = os.environ.get("WANDB_MODE")
        if mode and mode not in MODES:
            raise AfterglowError(f"WANDB_MODE={mode} does not exist{did_you_mean(mode, MODES) or '; modes are ' + ', '.join(MODES) + '.'}")
        super().__init__(project=project or os.environ.get("WANDB_PROJECT") or "afterglow", entity=entity, tags=list(tags))
        self._wandb_init.pop("anonymous")  # W&B warns of it, whatever its value
        self.failed = False

    def use_folder(self, folder: Path) -> None:
        """Bind the run to its folder; called before anything is logged."""
        import wandb

        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        known = folder / "wandb" / "run_id"
        if not known.exists():
            known.write_text(os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8], encoding="utf-8")
        os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb").resolve()))  # or the images of offline tables are lost
        self._wandb_init |= {"dir": str(folder.resolve()), "id": known.read_text(encoding="utf-8").strip(), "name": folder.name}
        self._save_dir, self._id, self._name = str(folder), self._wandb_init["id"], folder.name
        mode = os.environ.get("WANDB_MODE") or ("online" if _reachable() else "offline")
        self._wandb_init |= {"mode": mode, "settings": wandb.Settings(silent=True)}

    @never_fatal
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(dict(metrics), step)

    @never_fatal
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        super().log_hyperparams(params)

    def _log(self, key: str, value: Any, step: int) -> None:
        super().log_metrics({key: value}, step)

    @never_fatal
    def log_images(self, key: str, images: np.ndarray, captions: Sequence[str], step: int) -> None:
        """Log images, uint8 [B, C, H, W]."""
        import wandb

        media = [wandb.Image(upscale(image), caption=text) for image, text in zip(images, captions, strict=True)]
        self._log(key, media[:MAX_IMAGES], step)

    @never_fatal
    def log_masks(self, key: str, images: np.ndarray, masks: Mapping[str, np.ndarray], captions: Sequence[str], step: int) -> None:
        """Log images, uint8 [B, C, H, W], with masks {label: bool [B, H, W]} as overlays."""
        self._log(key, masked_images(images, masks, captions)[:MAX_IMAGES], step)

    @never_fatal
    def log_histogram(self, key: str, values: np.ndarray, step: int) -> None:
        import wandb

        self._log(key, wandb.Histogram(values.ravel().tolist(), num_bins=64), step)

    @never_fatal
    def log_rows(
        self, key: str, columns: Mapping[str, Sequence[Any]], images: np.ndarray, masks: Mapping[str, np.ndarray], step: int
    ) -> None:
        """Log a table with one row for each generation: its image with masks, then the columns."""
        import wandb

        media = masked_images(images, masks, [""] * len(images))
        rows = [[image, *values] for image, *values in zip(media, *columns.values(), strict=True)]
        self._log(key, wandb.Table(columns=["image", *columns], data=rows), step)

    @never_fatal
    def log_files(self, images: Mapping[str, Path]) -> None:
        """Log image files."""
        import wandb

        self.experiment.log({key: wandb.Image(str(path)) for key, path in images.items()})

    @never_fatal
    def summarize(self, values: Mapping[str, Any]) -> None:
        """Add numbers to the run's summary."""
        self.experiment.summary.update(dict(values))

    @never_fatal
    def finish(self) -> None:
        import wandb

        if self._experiment is not None:
            wandb.finish()

    def how_to_view(self) -> str:
        """Return one line for the terminal: where the run can be viewed."""
        if self.failed or self._wandb_init.get("mode") == "disabled":
            return "W&B: nothing was recorded."
        if self._wandb_init.get("mode") == "online":
            return f"W&B: {getattr(self._experiment, 'url', None)}"
        folder = f"{self._save_dir}/wandb"
        return f"W&B (offline): view it with `wandb leet {folder}/latest-run`; upload it with `wandb sync {folder}/offline-run-*`"


def log_analysis(folder: Path, numbers: Mapping[str, float], images: Mapping[str, Path]) -> str:
    """Log numbers to the summary of a run folder's W&B run, and images next to them.

    Args:
        folder: run folder.
        numbers: values by W&B key.
        images: files by W&B key.

    Returns:
        how to view the result.

    Raises:
        AfterglowError: the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise AfterglowError(f"There is no run in '{folder}': config.yaml is missing.")
    return log_figures(folder, numbers, images)


def log_figures(folder: Path, numbers: Mapping[str, float], images: Mapping[str, Path]) -> str:
    """Log numbers and images to the W&B run that is bound to a folder, a new run if there is none yet."""
    logger = RunLogger()
    logger.use_folder(folder)
    logger.summarize(dict(numbers))
    logger.log_files(images)
    logger.finish()
    return logger.how_to_view()


def _reachable() -> bool:
    """Whether there is a key and the W&B server accepts connections."""
    import wandb

    try:
        if not (os.environ.get("WANDB_API_KEY") or wandb.login(prompt=False, verify=False)):
            return False
        address = urlparse(wandb.setup().settings.base_url)
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except Exception:  # whatever fails, the server cannot be used
        return False
    return True


def upscale(image: np.ndarray) -> Image.Image:
    """Return uint8 [C, H, W] as an image of at least 128 pixels per side, upscaled by a whole factor."""
    assert image.dtype == np.uint8, image.dtype
    upscaled = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    factor = max(1, -(-SMALLEST_SIDE // upscaled.width))
    return upscaled.resize((upscaled.width * factor, upscaled.height * factor), Image.Resampling.NEAREST)


def masked_images(images: np.ndarray, masks: Mapping[str, np.ndarray], captions: Sequence[str]) -> "list[wandb.Image]":
    """Return each image with its masks {label: bool [B, H, W]}, all upscaled by the same factor."""
    import wandb

    result = []
    for row, (image, text) in enumerate(zip(images, captions, strict=True)):
        upscaled = upscale(image)
        factor = upscaled.width // image.shape[-1]
        layers = {
            label: {"mask_data": mask[row].astype(np.uint8).repeat(factor, 0).repeat(factor, 1), "class_labels": {1: label}}
            for label, mask in masks.items()
        }
        result.append(wandb.Image(upscaled, caption=text, masks=layers or None))
    return result
