"""One W&B run for one run folder: offline by itself where there is no key or network, and never a reason for a training to end."""

import logging
import os
import socket
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import wandb
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

log = logging.getLogger(__name__)

MAX_IMAGES = 108  # W&B keeps no more for one key and step
SMALLEST_SIDE = 128  # small images are upscale, or nobody sees them on the page


def never_fatal(method: Callable[..., None]) -> Callable[..., None]:
    """A failure of the tracker is said once; the training and its own files go on."""

    @wraps(method)
    def guarded(self: "RunLogger", *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # whatever W&B raises, the numbers are in measurements.parquet too
            if not self.failed:
                log.warning("W&B failed (%s: %s); training goes on and writes its own files.", type(error).__name__, error)
            self.failed = True

    return guarded


class RunLogger(WandbLogger):
    """A WandbLogger whose run id lies in the run folder, so that a resumed training continues the same run.

    Of several processes only the first has a W&B run (Lightning's own logger sees to it); images are for it alone.

    Args:
        project: of W&B.
        entity: of W&B; default: yours.
        tags: of the run.
    """

    def __init__(self, project: str = "afterglow", entity: str | None = None, tags: Sequence[str] = ()) -> None:
        super().__init__(project=project, entity=entity, tags=list(tags))
        self._wandb_init.pop("anonymous")  # W&B warns of it, whatever its value
        self.failed = False

    def use_folder(self, folder: Path) -> None:
        """Bind the run to its folder; called by the door before anything is logged."""
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
        """images: uint8 [B, C, H, W]."""
        shown = [wandb.Image(upscale(image), caption=text) for image, text in zip(images, captions, strict=True)]
        self._log(key, shown[:MAX_IMAGES], step)

    @never_fatal
    def log_masks(self, key: str, images: np.ndarray, masks: Mapping[str, np.ndarray], captions: Sequence[str], step: int) -> None:
        """Images uint8 [B, C, H, W] with masks {label: bool [B, H, W]} laid over them."""
        self._log(key, masked_images(images, masks, captions)[:MAX_IMAGES], step)

    @never_fatal
    def log_histogram(self, key: str, values: np.ndarray, step: int) -> None:
        self._log(key, wandb.Histogram(values.ravel().tolist(), num_bins=64), step)

    @never_fatal
    def log_rows(
        self, key: str, columns: Mapping[str, Sequence[Any]], images: np.ndarray, masks: Mapping[str, np.ndarray], step: int
    ) -> None:
        """A table with one row a generation: its image with masks first, then the columns."""
        media = masked_images(images, masks, [""] * len(images))
        rows = [[image, *values] for image, *values in zip(media, *columns.values(), strict=True)]
        self._log(key, wandb.Table(columns=["image", *columns], data=rows), step)

    @never_fatal
    def show_files(self, images: Mapping[str, Path]) -> None:
        """Finished figures, beside the training's own steps."""
        self.experiment.log({key: wandb.Image(str(path)) for key, path in images.items()})

    @never_fatal
    def summarize(self, values: Mapping[str, Any]) -> None:
        """Numbers of the whole run."""
        self.experiment.summary.update(dict(values))

    @never_fatal
    def finish(self) -> None:
        if self._experiment is not None:
            wandb.finish()

    def how_to_view(self) -> str:
        """Two lines for the person at the terminal."""
        if self.failed or self._wandb_init.get("mode") == "disabled":
            return "W&B: nothing was recorded."
        if self._wandb_init.get("mode") == "online":
            return f"W&B: {getattr(self._experiment, 'url', None)}"
        folder = f"{self._save_dir}/wandb"
        return f"W&B (offline): look at it with `wandb leet {folder}/latest-run`; upload it with `wandb sync {folder}/offline-run-*`"


def log_analysis(folder: Path, numbers: Mapping[str, float], images: Mapping[str, Path]) -> str:
    """Numbers into the summary of a run folder's own W&B run, and images beside them; returns how to view it.

    Raises ValueError where the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"There is no run in '{folder}': config.yaml is missing.")
    return log_figures(folder, numbers, images)


def log_figures(folder: Path, numbers: Mapping[str, float], images: Mapping[str, Path]) -> str:
    """The same into the W&B run that is bound to any folder, a new one where there is none yet."""
    tracker = RunLogger()
    tracker.use_folder(folder)
    tracker.summarize(dict(numbers))
    tracker.show_files(images)
    tracker.finish()
    return tracker.how_to_view()


def _reachable() -> bool:
    """Whether there is a key, and somebody answers at W&B's address."""
    try:
        if not (os.environ.get("WANDB_API_KEY") or wandb.login(prompt=False, verify=False)):
            return False
        address = urlparse(wandb.setup().settings.base_url)
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except Exception:  # any failure of looking means: not reachable
        return False
    return True


def upscale(image: np.ndarray) -> Image.Image:
    """uint8 [C, H, W] => an image of at least 128 pixels a side, in whole multiples (the tracker casts floats to black)."""
    assert image.dtype == np.uint8, image.dtype
    upscaled = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    factor = max(1, -(-SMALLEST_SIDE // upscaled.width))
    return upscaled.resize((upscaled.width * factor, upscaled.height * factor), Image.Resampling.NEAREST)


def masked_images(images: np.ndarray, masks: Mapping[str, np.ndarray], captions: Sequence[str]) -> list[wandb.Image]:
    """Each image with its masks {label: bool [B, H, W]}, upscale alike."""
    result = []
    for row, (image, text) in enumerate(zip(images, captions, strict=True)):
        shown = upscale(image)
        factor = shown.width // image.shape[-1]
        layers = {
            label: {"mask_data": mask[row].astype(np.uint8).repeat(factor, 0).repeat(factor, 1), "class_labels": {1: label}}
            for label, mask in masks.items()
        }
        result.append(wandb.Image(shown, caption=text, masks=layers or None))
    return result
