"""The W&B run of a run folder. It is recorded offline and uploaded beside the training; a failure of W&B never ends a training."""

import logging
import os
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from afterglow import keys
from afterglow.errors import AfterglowError, did_you_mean
from afterglow.loggers import artifacts
from afterglow.loggers.images import image_grid, masked_grid
from afterglow.loggers.names import check_names, run_id
from afterglow.loggers.uploader import Uploader

log = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # values of WANDB_MODE that W&B accepts
LARGEST_CHECKPOINT = 500 * 2**20  # bytes; larger ones are not uploaded
FLUSH_SECONDS = 0.1  # W&B writes what was logged to the disk at this interval
FINISH_SECONDS = 5
LONGEST_TITLE, LONGEST_TEXT = 63, 1000  # characters of an alert


def never_fatal(method: Callable[..., None]) -> Callable[..., None]:
    """Report a failure of W&B once; the training continues and writes its own files. Without a W&B run nothing is done."""

    @wraps(method)
    def guarded(self: "RunLogger", *args: Any, **kwargs: Any) -> None:
        if self._wandb_init.get("mode") == "disabled":
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # whatever W&B raises, the numbers are in measurements.parquet too
            self.note_failure(error)

    return guarded


class RunLogger(WandbLogger):
    """A WandbLogger whose run id lies in the run folder, so that a resumed training continues the same run.

    Only the main process has a W&B run (Lightning's own logger takes care of it).

    Args:
        project: W&B project; null: the environment variable WANDB_PROJECT, otherwise "afterglow".
        entity: W&B user or team; null: the environment variable WANDB_ENTITY, otherwise your default entity.
        tags: tags of the run.
        log_checkpoint: at the end, also upload checkpoints/last.ckpt if it has at most 500 MB.
        workspace: when a run is uploaded, save the workspace of `afterglow dashboard` unless the project has it (extra: dashboard).

    Raises:
        AfterglowError: WANDB_MODE is not a mode of W&B, or W&B does not allow the project, the entity or a tag.
    """

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        tags: Sequence[str] = (),
        log_checkpoint: bool = False,
        workspace: bool = False,
    ) -> None:
        mode = os.environ.get("WANDB_MODE")
        if mode and mode not in MODES:
            raise AfterglowError(f"WANDB_MODE={mode} does not exist{did_you_mean(mode, MODES) or '; modes are ' + ', '.join(MODES) + '.'}")
        project = project or os.environ.get("WANDB_PROJECT") or "afterglow"
        check_names(project, entity or os.environ.get("WANDB_ENTITY"), tags)
        super().__init__(project=project, entity=entity, tags=list(tags))
        self._wandb_init.pop("anonymous")  # W&B warns of it, whatever its value
        self.log_checkpoint, self.workspace = log_checkpoint, workspace
        self.failed = False
        self._offline_because: str | None = None
        self._uploader: Uploader | None = None
        self._announced = False
        self._defined: set[str] = set()
        self._logged_at = 0.0

    def use_folder(self, folder: Path) -> None:
        """Bind the run to its folder; called before anything is logged."""
        import wandb

        self._save_dir, self._id, self._name = str(folder), run_id(folder / "wandb"), folder.name
        os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb").resolve()))  # or the images of offline tables are lost
        os.environ.setdefault(
            "WANDB_ERROR_REPORTING", "false"
        )  # or the process that records sends reports to the server and prints failures
        settings = wandb.Settings(silent=True, x_transaction_log_flush_interval=FLUSH_SECONDS, finish_timeout=FINISH_SECONDS)
        mode = "disabled" if os.environ.get("WANDB_MODE") == "disabled" else "offline"
        self._wandb_init |= {"dir": str(folder.resolve()), "id": self._id, "name": folder.name, "mode": mode, "settings": settings}
        self._offline_because = _offline_because()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; opened, and its upload started, at the first access."""
        if self._experiment is None:
            try:
                self._experiment = self._open()
            except Exception as error:  # whatever W&B raises, the training goes on without it
                self.note_failure(error)
                self._wandb_init["mode"] = "disabled"
                self._experiment = self._open()
        return self._experiment

    def _open(self) -> Any:
        """Start the run. Unlike Lightning's logger it defines no `*`, since W&B applies only one of the patterns that match a key."""
        import wandb

        run = wandb.init(**self._wandb_init)
        run.define_metric(keys.STEP)
        for pattern, (summary, hidden) in keys.GROUPS.items():
            run.define_metric(pattern, step_metric=keys.STEP, step_sync=True, summary=summary, hidden=hidden)
        if self._wandb_init["mode"] == "offline" and self._offline_because is None:
            self._uploader = Uploader(Path(self._save_dir or ".") / "wandb", self.workspace)
        return run

    def note_failure(self, error: Exception) -> None:
        """Report the first failure of W&B."""
        if not self.failed:
            log.warning("W&B failed (%s: %s); training continues and writes its own files.", type(error).__name__, error)
        self.failed = True

    @never_fatal
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        for key in metrics.keys() - self._defined:  # W&B applies no pattern to keys with dots, nor to keys that are the start of such keys
            summary, hidden = next((group for pattern, group in keys.GROUPS.items() if fnmatch(key, pattern)), (None, False))
            self.experiment.define_metric(key.replace(".", r"\."), step_metric=keys.STEP, step_sync=True, summary=summary, hidden=hidden)
        self._defined |= metrics.keys()
        super().log_metrics(dict(metrics), step)
        self._logged_at = time.monotonic()
        if self._uploader is not None and not self._announced and (line := self._uploader.url or self._uploader.error):
            self._announced = True
            log.info("W&B: %s", line)

    @never_fatal
    def flush(self) -> None:
        """Wait until everything that was logged is on the disk; called before a checkpoint is written."""
        if self._experiment is not None and self._wandb_init.get("mode") == "offline":
            self._experiment.status()  # answered after all records before it
            time.sleep(max(0.0, self._logged_at + 2 * FLUSH_SECONDS - time.monotonic()))

    @never_fatal
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        super().log_hyperparams(params)

    def _log(self, key: str, value: Any, step: int) -> None:
        super().log_metrics({key: value}, step)

    @never_fatal
    def log_images(self, key: str, images: np.ndarray, captions: Sequence[str], step: int) -> None:
        """Log images, uint8 [B, C, H, W], as one grid."""
        self._log(key, image_grid(images, " | ".join(captions)), step)

    @never_fatal
    def log_masks(self, key: str, images: np.ndarray, masks: Mapping[str, np.ndarray], captions: Sequence[str], step: int) -> None:
        """Log a grid of images, uint8 [B, C, H, W], with masks {planted, predicted: bool [B, H, W]} as contours and as layers."""
        self._log(key, masked_grid(images, masks, " | ".join(captions)), step)

    @never_fatal
    def log_histogram(self, key: str, values: np.ndarray, step: int) -> None:
        import wandb

        self._log(key, wandb.Histogram(values.ravel().tolist(), num_bins=64), step)

    @never_fatal
    def log_rows(
        self, key: str, columns: Mapping[str, Sequence[Any]], images: Sequence[np.ndarray], masks: Sequence[np.ndarray], step: int
    ) -> None:
        """Log a table.

        Args:
            key: W&B key.
            columns: values of the rows by name.
            images: the images of each row, uint8 [B, C, H, W], which its first cell shows side by side.
            masks: planted mask of the images of each row, bool [H, W]; shown unless it is empty or whole.
            step: training step.
        """
        import wandb

        cells = []
        for cell, mask in zip(images, masks, strict=True):
            layers = {"planted": mask[None].repeat(len(cell), 0)} if mask.any() and not mask.all() else {}
            cells.append(masked_grid(cell, layers, "", columns=len(cell)))
        rows = [[cell, *values] for cell, *values in zip(cells, *columns.values(), strict=True)]
        self._log(key, wandb.Table(columns=["images", *columns], data=rows), step)

    @never_fatal
    def log_files(self, images: Mapping[str, Path], tables: Mapping[str, Any]) -> None:
        """Log image files and DataFrames."""
        import wandb

        shown = {key: wandb.Image(str(path)) for key, path in images.items()}
        self.experiment.log(shown | {key: wandb.Table(dataframe=table) for key, table in tables.items()})

    @never_fatal
    def summarize(self, values: Mapping[str, Any]) -> None:
        """Add numbers to the run's summary."""
        self.experiment.summary.update(dict(values))

    @never_fatal
    def alert(self, title: str, text: str, *, error: bool = False) -> None:
        """Send a message to the people who follow the run."""
        self.experiment.alert(title[:LONGEST_TITLE], text[:LONGEST_TEXT], level="ERROR" if error else "INFO")

    @never_fatal
    def log_page(self, page: Path, step: int) -> None:
        """Log the report of the run."""
        import wandb

        self._log(keys.REPORT, wandb.Html(str(page)), step)

    @never_fatal
    def mark_preempting(self) -> None:
        """Tell W&B that the run was preempted and not failed, so that a sweep starts it again."""
        self.experiment.mark_preempting()

    @never_fatal
    def log_pipeline(self, folder: Path, run: Path) -> None:
        """Log an exported pipeline as an artifact, which was made from the planted set and the measurements of the run."""
        artifacts.use_inputs(self.experiment, run, "plants", "measurements")
        artifacts.log_files(self.experiment, "pipeline", "model", [folder])

    @never_fatal
    def log_results(self, page: Path) -> None:
        """Log the planted set as input; the measurements and, if it is wanted and not too large, the last checkpoint as results."""
        folder, last = page.parent, page.parent / "checkpoints" / "last.ckpt"
        artifacts.use_inputs(self.experiment, folder, "plants")
        artifacts.log_files(
            self.experiment, "measurements", "measurements", [folder / name for name in artifacts.INPUTS["measurements"][1]]
        )
        if self.log_checkpoint and last.is_file() and last.stat().st_size <= LARGEST_CHECKPOINT:
            artifacts.log_files(self.experiment, "checkpoint", "model", [last])

    def finish(self, exit_code: int = 0) -> None:
        """End the run and wait, for a limited time, until it is uploaded.

        Args:
            exit_code: not 0 if the training failed or was interrupted.
        """
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None
        try:
            run.finish(exit_code)
            if self._uploader is not None:
                self._offline_because = self._uploader.finish()
        except Exception as error:
            self.note_failure(error)

    def how_to_view(self) -> str:
        """Return text for the terminal: where the run can be viewed, and why it is offline."""
        if self._wandb_init.get("mode") != "offline":
            return "W&B: nothing was recorded."
        if self._uploader is not None and self._offline_because is None:
            return f"W&B: {self._uploader.url}"
        folder = f"{self._save_dir}/wandb"
        commands = f"  view it:   wandb leet {folder}/latest-run\n  upload it: wandb sync {folder}/offline-run-*"
        return f"W&B (offline: {self._offline_because})\n{commands}"


def _offline_because() -> str | None:
    """Why runs are not uploaded, or None if they are."""
    import wandb

    if (mode := os.environ.get("WANDB_MODE")) in ("offline", "dryrun"):
        return f"WANDB_MODE={mode}"
    if mode == "disabled" or os.environ.get("WANDB_API_KEY"):
        return None
    try:
        wandb.setup(wandb.Settings(silent=True))
        return None if wandb.login(prompt=False, verify=False) else "no API key, see `wandb login`"
    except Exception as error:  # a malformed key, for example
        return str(error)
