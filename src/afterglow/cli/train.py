"""Wiring: what `train.py` does."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from afterglow import distributed
from afterglow.callbacks.monitor import MemorizationMonitor
from afterglow.callbacks.progress import Progress
from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.loggers.run_logger import RunLogger
from afterglow.mitigations.training.callback import Mitigation
from afterglow.models.denoiser import Denoiser
from afterglow.models.ema import WarmupEMA
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.io import write_planted
from afterglow.reports.page import write_report
from afterglow.reports.run_tables import emergence_text

log = logging.getLogger("afterglow")

RUNS = Path("runs")
HELP = """Train a diffusion model on a set with planted images, and watch which of them it comes to memorize.

  accelerate launch train.py                                            the demo: OpenMoji at 16 pixels, minutes on two cores
  accelerate launch train.py --config configs/cifar10_small.yaml --data.data_dir DIR --name first
  accelerate launch train.py --name first --ckpt_path last              go on where a run stopped

A run is one recipe (--config configs/RECIPE.yaml), any overlays (--config configs/overlays/NAME.yaml) and single values
(--model.learning_rate 1e-3, --data.planting.copies [8,32], --trainer.max_steps 4000). Everything it makes lies in runs/NAME.
"""


class SaveConfig(SaveConfigCallback):
    """config.yaml in the run folder; `--config runs/NAME/config.yaml` repeats the run."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        text = self.parser.dump(self.config, skip_none=False)
        (Path(trainer.default_root_dir) / "config.yaml").write_text(text, encoding="utf-8")
        if trainer.logger is not None:
            trainer.logger.log_hyperparams({"config": self.config.as_dict()})


class AfterglowCLI(LightningCLI):
    """LightningCLI with a run folder, a tracker bound to it, and the callbacks that every run has."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="of the run: runs/NAME; default: the recipe's")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="'last' continues the run NAME; or the path of a checkpoint")
        parser.add_lightning_class_args(WarmupEMA, "ema")
        parser.add_lightning_class_args(MemorizationMonitor, "monitor")
        parser.add_lightning_class_args(Progress, "progress")
        parser.add_lightning_class_args(Mitigation, "mitigation")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_class_arguments(RunLogger, "wandb")
        parser.set_defaults({"checkpoint.every_n_train_steps": 200, "checkpoint.save_last": True, "checkpoint.filename": "{step}"})
        for name in ("resolution", "channels"):
            parser.link_arguments(f"data.init_args.{name}", f"model.init_args.{name}")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.init_args.seed")

    def before_instantiate_classes(self) -> None:
        self.folder = RUNS / (self.config.name or default_name(self.config))
        self.config.checkpoint.dirpath = str(self.folder / "checkpoints")
        if self.config.trainer.max_steps < 1 or self.config.trainer.max_epochs not in (-1, None):
            raise ValueError("The length of a training is said in optimizer steps: --trainer.max_steps N (and no max_epochs).")
        self.resume = find_checkpoint(self.folder, self.config.ckpt_path)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        self.tracker = self._get(self.config_init, "wandb")
        return super().instantiate_trainer(default_root_dir=str(self.folder), logger=self.tracker, **kwargs)

    def callback(self, kind: type[L.Callback]) -> Any:
        """The run's one callback of a kind."""
        return next(callback for callback in self.trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]

    def prepare(self) -> None:
        """Everything that can be refused is refused here, before anything is written."""
        distributed.check(self.trainer)
        self.monitor, mitigation = self.callback(MemorizationMonitor), self.callback(Mitigation)
        mitigation.check(self.model)
        self.datamodule.share = distributed.share()
        self.monitor.rank, self.monitor.world_size = distributed.share()
        self.monitor.ema = self.callback(WarmupEMA)
        if distributed.is_first():
            self.datamodule.prepare_data()
            self.datamodule.setup()  # a set that cannot be planted as asked
            mitigation.check_captions([*self.datamodule.planted.captions, *(one.caption for one in self.datamodule.planted.plants)])
            create_run_dir(self.folder)
            self.tracker.use_folder(self.folder)

    def train(self) -> None:
        self.prepare()
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.resume, weights_only=True)
        except BaseException:
            self.tracker.finish()  # what was logged is kept, whatever ended the training
            raise
        if distributed.is_first():
            self.finish()

    def finish(self) -> None:
        page = write_report(self.folder)
        self.tracker.finish()
        print(f"\n{emergence_text(self.folder)}\n\n{self.monitor.clock.summary()}\nReport: {page}\n{self.tracker.how_to_view()}")


class Announce(L.Callback):
    """Says what is planted and writes it to the run folder."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: PlantedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            print(f"{folder}: {data.describe()}")
            write_planted(data.planted, folder / "plants", everything=False)


def default_name(config: Any) -> str:
    """The recipe's file name, and the sweep's run id where W&B started this run."""
    stem = Path(str(config.config[0])).stem if config.config else "demo"
    return f"{stem}-{os.environ['WANDB_RUN_ID']}" if os.environ.get("WANDB_SWEEP_ID") else stem


def find_checkpoint(folder: Path, wanted: str | None) -> str | None:
    """The checkpoint to go on from; None to begin. Raises ValueError where a run would be overwritten, or a path does not exist."""
    last = folder / "checkpoints" / "last.ckpt"
    if wanted == "last":
        return str(last) if last.exists() else None
    if wanted is not None:
        if not Path(wanted).is_file():
            raise ValueError(f"There is no checkpoint '{wanted}'.")
        return wanted
    if (folder / "measurements.parquet").exists() or last.exists():
        raise ValueError(f"'{folder}' already holds a run: continue it with --ckpt_path last, or give this one another --name.")
    return None


def create_run_dir(folder: Path) -> None:
    """Make the run folder; raises ValueError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        monitor = folder / ".writable"
        monitor.touch()
        monitor.unlink()
    except OSError as error:
        raise ValueError(f"The run folder '{folder}' cannot be written: {error.strerror}.") from error


def main(root: Path, args: Sequence[str] | None = None) -> None:
    """Train as the command line says; without a recipe, the demo. Bad input: one sentence and exit code 2."""
    given = list(sys.argv[1:] if args is None else args)
    if not any(word.split("=")[0] in ("--config", "-c") for word in given):
        given = ["--config", str(root / "configs" / "demo.yaml"), *given]
    configure_logging()
    with exit_on_user_error():
        door = AfterglowCLI(
            Denoiser,
            PlantedDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=distributed.trainer_defaults() | {"callbacks": [Announce()]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"default_config_files": [str(root / "configs" / "base.yaml")], "description": HELP, "exit_on_error": False},
            run=False,
            args=given,
        )
        door.train()
