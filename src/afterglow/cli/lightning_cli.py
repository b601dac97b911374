"""LightningCLI with a run folder, a W&B run bound to it, and the callbacks of every run."""

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from afterglow import distributed, models
from afterglow.cache import atomic_path, remove_unfinished
from afterglow.callbacks.checkpoint import AtomicCheckpointIO, RunCheckpoint, make_last
from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.monitor import MemorizationMonitor
from afterglow.callbacks.nonfinite import NonFinite
from afterglow.callbacks.preemption import Preemption, take_max_seconds
from afterglow.callbacks.progress import Progress
from afterglow.cli.dry_run import DRY_STEPS, DryRun, take_processes
from afterglow.cli.recipes import ALLOW_IMPORT, ALLOWED, RecipeHelp, config_file, names_recipe, parse_recipe
from afterglow.cli.resume import Resume, changed_options, check_weights, find_resume, refuse_changes
from afterglow.cli.run_lock import RunLock
from afterglow.cli.train_help import TRAINER_HELP, train_help
from afterglow.cli.train_options import RUNS, check_options, create_run_dir, default_name, run_folder
from afterglow.errors import AfterglowError, LostProcessError, configure_logging, one_line, user_error
from afterglow.loggers.run_logger import RunLogger
from afterglow.loggers.settings import flat_settings
from afterglow.mitigations import training as training_mitigations
from afterglow.models.denoiser import Denoiser, TrainingMitigation
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.io import changed_plants, write_planted
from afterglow.reports.page import write_report
from afterglow.reports.run import read_config
from afterglow.reports.run_tables import emergence_text
from afterglow.signals import Stopped, StopSignals

RESUME_HELP = "auto: resume the run NAME if it exists, otherwise begin it"
DRY_RUN_HELP = "build everything, run a few steps and a small evaluation, and print memory, time per step and the expected total"
CHANGES_HELP = "true: resume although options or the planted set differ from those of the run"
LOST_PROCESS = "Another process of this training has ended, so this process ends too; continue with the same command and --resume auto"
MITIGATIONS = [getattr(training_mitigations, name) for name in training_mitigations.__all__]
MITIGATIONS_HELP = f"training mitigations, applied in this order: {', '.join(training_mitigations.__all__)}"
ALLOW_IMPORT_HELP = f"packages, separated by commas, whose classes a recipe may name besides those of {', '.join(ALLOWED)}"


class AfterglowCLI(LightningCLI):
    """The parser and the objects of a training.

    Args:
        signals: the handlers of the process.
        lock: locks the run folder; the caller releases it.
        options: of LightningCLI.
    """

    def __init__(self, signals: StopSignals, lock: RunLock, **options: Any) -> None:
        self.signals, self.lock = signals, lock
        super().__init__(DenoiserModule, PlantedDataModule, **options)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the Trainer, the model (a Denoiser, not a LightningModule) and the data."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items() if name != "callbacks"})
        parser.add_subclass_arguments(Denoiser, "model", fail_untyped=False, required=True)
        parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=self.subclass_mode_data)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run and of its callbacks, and hide most options of the Trainer."""
        parser.add_argument("--name", type=str | None, default=None, help="name of the run folder, runs/NAME; null: the recipe's name")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="'last' resumes the run NAME; a path resumes from that checkpoint"
        )
        parser.add_argument("--resume", type=Literal["auto"] | None, default=None, help=RESUME_HELP)
        parser.add_argument("--allow_changes", type=bool, default=False, help=CHANGES_HELP)
        parser.add_argument("--dry-run", action="store_true", help=DRY_RUN_HELP)
        parser.add_argument(ALLOW_IMPORT, type=str | None, default=None, help=ALLOW_IMPORT_HELP)
        parser.add_lightning_class_args(WarmupEMA, "ema")
        parser.add_lightning_class_args(MemorizationMonitor, "monitor")
        parser.add_lightning_class_args(Progress, "progress")
        parser.add_lightning_class_args(NonFinite, "on_nonfinite")
        parser.add_class_arguments(OptimizerConfig, "optimizer")
        parser.add_argument("--mitigations", type=list[TrainingMitigation], default=[], help=MITIGATIONS_HELP)
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_class_arguments(RunLogger, "wandb")
        for name in ("resolution", "channels"):
            parser.link_arguments(f"data.init_args.{name}", f"model.init_args.{name}")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.init_args.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Print the help, or parse; what jsonargparse refuses becomes one sentence."""
        if TRAINER_HELP in args or {"-h", "--help"} & set(args):
            print(train_help(parser, args, of_lightning=TRAINER_HELP in args))
            raise SystemExit(0)
        self.arguments: list[str] = args
        classes = [models.DDPM, models.TextConditionalDDPM, models.StableDiffusion]
        self.config = parse_recipe(parser, args, model=classes, data=[PlantedDataModule], mitigations=MITIGATIONS)
        check_options(self.config)

    def before_instantiate_classes(self) -> None:
        """Name the run folder, find the checkpoint to resume from, and compare the configuration with that of the run."""
        self.folder = run_folder(default_name(self.config, self.arguments) if self.config.name is None else self.config.name)
        if self.config.resume and self.config.ckpt_path:
            raise AfterglowError("Give either --resume auto or --ckpt_path, not both.")
        self.resume: Resume | None = None
        self.changes: list[str] = []
        if self.config.dry_run:
            self.max_steps, self.processes = self.config.trainer.max_steps, take_processes(self.config.trainer)
            self.config.trainer.max_steps = min(self.max_steps, DRY_STEPS)
            return
        if self.folder.is_dir() and distributed.is_main_process():
            self.lock.acquire(self.folder)
        self.resume = find_resume(self.folder, self.config.ckpt_path, self.config.resume)
        self.changes = self._changed_options()
        if not self.config.allow_changes:
            refuse_changes(self.folder, self.changes)

    def _changed_options(self) -> list[str]:
        """What differs from the run that is resumed; nothing if it starts from step 0 or from a checkpoint of another run."""
        resumes = self.resume is not None or self.config.resume
        written = read_config(self.folder) if resumes else {}
        return changed_options(written, yaml.safe_load(self._config_text())) if written else []

    def _config_text(self) -> str:
        """The configuration without how it is resumed, so that `--config runs/NAME/config.yaml --name OTHER` repeats the run."""
        config = self.config.clone()
        config.ckpt_path, config.resume, config.allow_changes, config.allow_import, config.dry_run = None, None, False, None, False
        return self.parser.dump(config, skip_none=False)

    def instantiate_classes(self) -> None:
        """Wrap the model in the module that trains it."""
        try:
            super().instantiate_classes()
        except Exception as error:  # Lightning and the libraries of models raise many kinds of errors for unsupported values
            if user_error(error):
                raise
            raise AfterglowError(f"The options cannot be used: {one_line(f'{type(error).__name__} {error}', 240)}") from error
        self.config_init.monitor.settings.sampler.build(self.model.scheduler)  # raises AfterglowError if the two do not fit
        self.model = DenoiserModule(self.model, self.config_init.optimizer, self.config_init.mitigations)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Give the Trainer the run folder and the W&B logger."""
        self.run_logger = self.config_init.wandb
        logger: Any = False if self.config.dry_run else self.run_logger
        trainer = super().instantiate_trainer(default_root_dir=str(self.folder), logger=logger, **kwargs)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        self.preemption = Preemption(self.signals, take_max_seconds(trainer))
        trainer.callbacks.insert(0, self.preemption)  # type: ignore[attr-defined]
        return trainer

    @property
    def ended(self) -> bool:
        """Whether the run that is resumed was complete, so that nothing is trained."""
        if self.resume is None:
            return False
        stopped = self.resume.stopped and self.config_init.monitor.early_stop.monitor is not None
        return stopped or self.resume.step >= self.trainer.max_steps

    def dry_run(self) -> None:
        """Measure a few steps and an evaluation, and print what the training would take."""
        distributed.validate_trainer(self.trainer, self.config.trainer.precision)
        self.monitor = self.config_init.monitor
        self.monitor.rank, _ = self.datamodule.rank, self.datamodule.world_size = distributed.rank_and_world_size()[0], self.processes
        text = DryRun(self.monitor, self.max_steps, self.processes).run(self.trainer, self.model, self.datamodule)
        if distributed.is_main_process():
            print(f"Dry run of '{self.folder}', which is not made: {self.datamodule.describe()}\n{text}")

    def prepare(self) -> None:
        """Raise an AfterglowError for everything that cannot work, and only then write to the run folder."""
        distributed.validate_trainer(self.trainer, self.config.trainer.precision)
        self.monitor = self.config_init.monitor
        self.monitor.rank, self.monitor.world_size = distributed.rank_and_world_size()
        self.datamodule.rank, self.datamodule.world_size = distributed.rank_and_world_size()
        self.monitor.ema, self.monitor.check = self.config_init.ema, self.preemption.check
        self.monitor.time_limited = self.preemption.deadline is not None
        if self.resume is not None:
            check_weights(self.resume.file, self.model.state_dict())
        self.monitor.after_evaluation = write_report
        if distributed.is_main_process():
            self.datamodule.prepare_data()
            self.datamodule.setup()
            self.model.setup_mitigations(self.datamodule.planted)
            if self.resume is not None and not self.config.allow_changes:
                refuse_changes(self.folder, changed_plants(self.datamodule.planted, self.folder / "plants"))
            create_run_dir(self.folder)
            self.lock.acquire(self.folder)
            self._write_inputs()

    def _write_inputs(self) -> None:
        """Write the configuration and the plants, unless nothing is trained, and print from which step the run continues."""
        remove_unfinished(self.folder)
        self.run_logger.use_folder(self.folder)
        print(f"{self.folder}: {self.datamodule.describe()}")
        if self.resume is not None:
            print(self.resume.describe(self.trainer.world_size))
        if self.ended:
            return
        if self.resume is not None:
            make_last(self.resume.file, self.resume.step, self.folder)
        config = self.folder / "config.yaml"
        if self.changes and self.resume is not None and config.is_file():
            shutil.copy(config, self.folder / f"config_until_step={self.resume.step}.yaml")
        with atomic_path(config) as path:
            path.write_text(self._config_text(), encoding="utf-8")
        plants = self.folder / "plants"
        if self.resume is None or self.config.allow_changes or not plants.is_dir():
            shutil.rmtree(plants, ignore_errors=True)
            with atomic_path(plants) as path:
                write_planted(self.datamodule.planted, path, everything=False)
        if self.trainer.logger is not None:
            self.trainer.logger.log_hyperparams(flat_settings(self.config.as_dict()) | {"config": self.config.as_dict()})

    def fit(self) -> None:
        """Train, then write the report and print where everything is."""
        if self.config.dry_run:
            self.dry_run()
            return
        self.prepare()
        checkpoint = None if self.resume is None else str(self.resume.file)
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=checkpoint, weights_only=True)
        except BaseException as error:
            if isinstance(error, Stopped):
                self.run_logger.mark_preempting()
            self.run_logger.alert(f"{self.folder.name} stopped", str(error) or type(error).__name__, error=True)
            self.run_logger.finish(exit_code=1)  # so that everything logged so far is kept
            self.preemption.wait_for_all()
            if distributed.is_lost_process(error):
                reason = str(error).rpartition("] ")[2].partition(". ")[0]  # without gloo's place in its source
                raise LostProcessError(f"{LOST_PROCESS} ({one_line(reason, 100)}).") from error
            raise
        if distributed.is_main_process():
            page = self.folder / "report.html"
            if self.ended or not page.is_file():  # otherwise the last evaluation has written it
                write_report(self.folder)
            print(f"\n{emergence_text(self.folder)}\n\n{self.monitor.clock.summary()}\nReport: {page}", flush=True)
            if not self.ended:
                self.run_logger.log_results(page)
                self.run_logger.alert(f"{self.folder.name} finished", self.monitor.clock.summary())
            self.run_logger.finish()
            print(self.run_logger.how_to_view())


def train(arguments: list[str], description: str, signals: StopSignals) -> None:
    """Parse the command line and train; see `afterglow.cli.train.main`."""
    configure_logging()  # again, because Lightning sets the levels of its loggers when it is imported
    if not distributed.is_main_process():
        logging.getLogger("afterglow").setLevel(logging.WARNING)  # each line once
    if "--print_config" in arguments:  # it prints what was read before it
        arguments = [word for word in arguments if word != "--print_config"] + ["--print_config"]
    if not names_recipe(arguments):
        arguments = ["--config", str(_own_config(arguments) or config_file("demo.yaml")), *arguments]
    with RunLock() as lock:
        AfterglowCLI(
            signals,
            lock,
            subclass_mode_data=True,
            save_config_callback=None,  # the command writes config.yaml itself, but not that of a run that has ended
            trainer_defaults=distributed.trainer_defaults(),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "afterglow train",
                "usage": "afterglow train [--config RECIPE] [--config OVERLAY ...] [--name NAME] [--OPTION VALUE ...]",
                "description": description,
                "formatter_class": RecipeHelp,
                "default_config_files": [str(config_file("base.yaml"))],
                "exit_on_error": False,
                "allow_abbrev": False,
            },
            run=False,
            args=arguments,
        ).fit()


def _own_config(arguments: list[str]) -> Path | None:
    """The configuration of the run that the arguments resume by its name, None if there is none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--name", "--ckpt_path", "--resume"):
        parser.add_argument(option, nargs="?")
    known, _ = parser.parse_known_args(arguments)
    file = RUNS / str(known.name) / "config.yaml"
    return file if (known.ckpt_path or known.resume) and file.is_file() else None
