"""LightningCLI with a run folder, a W&B run bound to it, and the callbacks of every run."""

import os
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from afterglow import distributed, models
from afterglow.callbacks.checkpoint import AtomicCheckpointIO, RunCheckpoint
from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.monitor import MemorizationMonitor
from afterglow.callbacks.progress import Progress
from afterglow.cli.recipes import RecipeHelp, config_file, explained, known_options, names_recipe
from afterglow.errors import AfterglowError, configure_logging, user_error
from afterglow.loggers.run_logger import RunLogger
from afterglow.mitigations import training as training_mitigations
from afterglow.models.denoiser import Denoiser, TrainingMitigation
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.io import write_planted
from afterglow.reports.page import write_report
from afterglow.reports.run_tables import emergence_text

RUNS = Path("runs")
SEED_HELP = "seed of the planting, the order of the samples, the noise and the weights"
TRAINER_HELP = "--trainer.help"
MITIGATIONS_HELP = f"training mitigations, applied in this order: {', '.join(training_mitigations.__all__)}"
SHOWN = {  # Lightning's own options that --help shows; --trainer.help shows the others
    "trainer": ("max_steps", "accelerator", "accumulate_grad_batches", "gradient_clip_val", "log_every_n_steps"),
}


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml to the run folder; `--config runs/NAME/config.yaml` repeats the run."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        text = self.parser.dump(self.config, skip_none=False)
        (Path(trainer.default_root_dir) / "config.yaml").write_text(text, encoding="utf-8")
        if trainer.logger is not None:
            trainer.logger.log_hyperparams({"config": self.config.as_dict()})


class AfterglowCLI(LightningCLI):
    """The parser and the objects of a training."""

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
        parser.add_lightning_class_args(WarmupEMA, "ema")
        parser.add_lightning_class_args(MemorizationMonitor, "monitor")
        parser.add_lightning_class_args(Progress, "progress")
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
            print(_help(parser, of_lightning=TRAINER_HELP in args))
            raise SystemExit(0)
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            if user_error(error):  # what a constructor of ours raised
                raise
            classes = [models.DDPM, models.TextConditionalDDPM, models.StableDiffusion]
            raise explained(error, known_options(parser, model=classes, data=[PlantedDataModule])) from error

    def before_instantiate_classes(self) -> None:
        """Name the run folder and find the checkpoint to resume from."""
        self.folder = RUNS / (self.config.name or default_name(self.config))
        if self.config.trainer.max_steps < 1 or self.config.trainer.max_epochs not in (-1, None):
            raise AfterglowError("The length of a training is given in optimizer steps: set trainer.max_steps, not trainer.max_epochs.")
        self.resume = find_checkpoint(self.folder, self.config.ckpt_path)

    def instantiate_classes(self) -> None:
        """Wrap the model in the module that trains it."""
        super().instantiate_classes()
        self.model = DenoiserModule(self.model, self.config_init.optimizer, self.config_init.mitigations)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Give the Trainer the run folder and the W&B logger."""
        self.run_logger = self.config_init.wandb
        trainer = super().instantiate_trainer(default_root_dir=str(self.folder), logger=self.run_logger, **kwargs)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def prepare(self) -> None:
        """Raise an AfterglowError for everything that cannot work, and only then write to the run folder."""
        distributed.validate_trainer(self.trainer)
        self.monitor = self.config_init.monitor
        self.monitor.rank, self.monitor.world_size = distributed.rank_and_world_size()
        self.datamodule.rank, self.datamodule.world_size = distributed.rank_and_world_size()
        self.monitor.ema = self.config_init.ema
        if distributed.is_main_process():
            self.datamodule.prepare_data()
            self.datamodule.setup()
            planted = self.datamodule.planted
            self.model.setup_mitigations(planted)
            create_run_dir(self.folder)
            self.run_logger.use_folder(self.folder)
            print(f"{self.folder}: {self.datamodule.describe()}")
            write_planted(planted, self.folder / "plants", everything=False)

    def fit(self) -> None:
        """Train, then write the report and print where everything is."""
        self.prepare()
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=self.resume, weights_only=True)
        except BaseException:
            self.run_logger.finish()  # so that everything logged so far is kept
            raise
        if distributed.is_main_process():
            page = write_report(self.folder)
            self.run_logger.finish()
            print(f"\n{emergence_text(self.folder)}\n\n{self.monitor.clock.summary()}\nReport: {page}\n{self.run_logger.how_to_view()}")


def default_name(config: Any) -> str:
    """Return the file name of the recipe, with the sweep's run id if W&B started this run."""
    stem = Path(str(config.config[0])).stem if config.config else "demo"
    return f"{stem}-{os.environ['WANDB_RUN_ID']}" if os.environ.get("WANDB_SWEEP_ID") else stem


def find_checkpoint(folder: Path, requested: str | None) -> str | None:
    """Return the checkpoint to resume from, or None to begin.

    Raises:
        AfterglowError: the run exists and is not to be resumed, or the path does not exist.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if requested == "last":
        return str(last) if last.exists() else None
    if requested is not None:
        if not Path(requested).is_file():
            raise AfterglowError(f"There is no checkpoint '{requested}'.")
        return requested
    if (folder / "measurements.parquet").exists() or last.exists():
        raise AfterglowError(f"'{folder}' already holds a run: resume it with --ckpt_path last, or choose another --name.")
    return None


def create_run_dir(folder: Path) -> None:
    """Make the run folder.

    Raises:
        AfterglowError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AfterglowError(f"The run folder '{folder}' cannot be written: {error.strerror}.") from error


def train(arguments: list[str], description: str) -> None:
    """Parse the command line and train; see `afterglow.cli.train.main`."""
    configure_logging()  # again, because Lightning sets the levels of its loggers when it is imported
    if not names_recipe(arguments):
        arguments = ["--config", str(config_file("demo.yaml")), *arguments]
    cli = AfterglowCLI(
        DenoiserModule,
        PlantedDataModule,
        subclass_mode_data=True,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
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
        },
        run=False,
        args=arguments,
    )
    cli.fit()


def _help(parser: LightningArgumentParser, *, of_lightning: bool) -> str:
    """All options but Lightning's rarely used ones, with those of the demo's model; or only Lightning's."""
    for action in parser._actions:
        section, _, name = action.dest.partition(".")
        if of_lightning != (section in SHOWN and name not in SHOWN[section]):
            action.help = SUPPRESS
        action.help = {"trainer.max_steps": "number of optimizer steps", "seed_everything": SEED_HELP}.get(action.dest, action.help)
    text = parser.format_help()
    if of_lightning:
        return text
    details = ArgumentParser(add_help=False, usage=SUPPRESS, formatter_class=RecipeHelp)
    details.add_class_arguments(TextConditionalDDPM, "model", skip={"resolution", "channels", "seed"})
    details.add_class_arguments(PlantedDataModule, "data", skip={"seed"})
    return f"{text}\nOptions of --model (of the demo's class, TextConditionalDDPM) and of --data:\n{details.format_help()}"
