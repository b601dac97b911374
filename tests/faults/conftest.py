"""Trainings in forked processes that kill themselves, or whose disk is full, at a chosen moment."""

import io
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[2]
STEPS = 10
ARGUMENTS = [
    *("train", "--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml")),
    *("--model.unet.block_out_channels", "[8,16]", "--trainer.max_steps", str(STEPS), "--monitor.measures", "[calibrated_l2]"),
    *("--monitor.num_controls", "2", "--monitor.num_heldout", "1", "--monitor.seeds", "1", "--monitor.final_seeds", "1"),
    *("--monitor.first_fraction", "0.5", "--data.planting.num_global", "1", "--data.planting.num_local", "1"),
    *("--data.planting.num_decoys", "1", "--data.planting.num_tints", "1"),
]
ROWS = ["step", "epoch", "plant_id", "kind", "caption", "seed", "measure", "value"]


@dataclass
class Moments:
    """Counts the watched calls of a process; `act` is called at the chosen one.

    Attributes:
        chosen: (name, number) of the call, or (None, number) for a number among all; None: no call.
        act: what happens there.
        names: the names of all calls so far.
    """

    chosen: tuple[str | None, int] | None
    act: Callable[[], None]
    names: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def reach(self, name: str) -> None:
        self.names.append(name)
        self.counts[name] += 1
        if self.chosen in ((name, self.counts[name]), (None, len(self.names))):
            self.act()

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Count each call of a function twice: before it ("<name") and after it (">name")."""
        original = getattr(owner, attribute)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"<{name}")
            result = original(*args, **kwargs)
            self.reach(f">{name}")
            return result

        setattr(owner, attribute, watched)

    def watch_halves(self, owner: Any, attribute: str, name: str) -> None:
        """Let a function write(content, file) write its bytes in two halves, between which is a moment."""
        original = getattr(owner, attribute)

        def halves(content: Any, stream: Any, *args: Any) -> None:
            buffer = io.BytesIO()
            original(content, buffer, *args)
            data = buffer.getvalue()
            stream.write(data[: len(data) // 2])
            stream.flush()
            self.reach(f"half {name}")
            stream.write(data[len(data) // 2 :])

        setattr(owner, attribute, halves)


def kill_now() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_all(moments: Moments) -> None:
    """Watch preparation, training, evaluation, checkpoints, W&B and every file operation of a training."""
    from afterglow.callbacks import checkpoint, run_files, training_evaluation
    from afterglow.cli import lightning_cli
    from afterglow.evaluation import measurement_table
    from afterglow.generations import Generations
    from afterglow.loggers.run_logger import RunLogger
    from afterglow.models import checkpoint as files
    from afterglow.models import lightning_module

    moments.watch_halves(files.torch, "save", "checkpoint")
    for owner, attribute, name in (
        (files, "write_checkpoint", "checkpoint file"),
        (checkpoint, "write_checkpoint", "checkpoint"),
        (checkpoint.RunCheckpoint, "_keep", "rotation"),
        (checkpoint.os, "link", "link"),
        (training_evaluation.TrainingEvaluation, "run", "evaluation"),
        (measurement_table.MeasurementTable, "add", "measurements"),
        (run_files.RunFiles, "write", "run files"),
        (Generations, "save", "generations"),
        (lightning_cli, "write_planted", "plants"),
        (lightning_cli, "write_report", "report"),
        (RunLogger, "log_metrics", "W&B"),
        (RunLogger, "use_folder", "W&B folder"),
        (lightning_module.DenoiserModule, "training_step", "step"),
        (os, "replace", "rename"),
        (os, "fsync", "fsync"),
        (Path, "unlink", "unlink"),
        (Path, "write_text", "text"),
        (Path, "write_bytes", "bytes"),
    ):
        moments.watch(owner, attribute, name)


def record_losses(file: Path) -> None:
    """Append "step loss" of each training step to a file, the loss with all its bits."""
    from afterglow.models.lightning_module import DenoiserModule

    original = DenoiserModule.training_step

    def recorded(self: Any, *args: Any) -> Any:
        loss = original(self, *args)
        with file.open("a") as stream:
            stream.write(f"{self.trainer.global_step} {float(loss.detach()).hex()}\n")
        return loss

    DenoiserModule.training_step = recorded


@dataclass
class Harness:
    """Starts trainings of one run folder each in forks of this process, which has imported everything.

    Attributes:
        folder: working folder; the runs are in folder/runs.
        environment: variables of the trainings.
        arguments: the words of a training but its name.
        steps: its number of steps.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = tuple(ARGUMENTS)
    steps: int = STEPS

    def start(self, name: str, *words: str, before: Callable[[], None] = lambda: None) -> int:
        """Fork a training of the run `name` and return its process id; it calls `before` first and writes to folder/NAME.log."""
        sys.stdout.flush()
        process = os.fork()
        if process:
            return process
        code = 1
        try:
            os.chdir(self.folder)
            log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ.update(self.environment)
            tempfile.tempdir = self.environment.get("TMPDIR")
            record_losses(self.folder / f"{name}.losses")
            before()
            from afterglow.cli import main

            main([*self.arguments, "--name", name, *words])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def train(self, name: str, *words: str, before: Callable[[], None] = lambda: None) -> int:
        """Train to the end and return the exit code; -9 after a SIGKILL."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(name, *words, before=before), 0)[1])

    def killed(self, name: str, moment: tuple[str | None, int] | None, *words: str) -> int:
        """Train until a moment, at which the process kills itself, and return the exit code."""
        return self.train(name, *words, before=lambda: watch_all(Moments(moment, kill_now)))

    def beside(self, folder: Path, **environment: str) -> tuple["Harness", Callable[..., None]]:
        """A harness with another working folder, and watched(moment, act), which acts at a moment of the process that calls it."""
        return replace(self, folder=folder, environment=self.environment | environment), lambda moment, act: watch_all(Moments(moment, act))

    def text(self, name: str) -> str:
        """What the trainings of a run printed."""
        return (self.folder / f"{name}.log").read_text()

    def rows(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"runs/{name}/measurements.parquet")[ROWS]

    def losses(self, name: str) -> dict[int, set[str]]:
        """All losses that any process computed at each step."""
        found: dict[int, set[str]] = {}
        for line in (self.folder / f"{name}.losses").read_text().splitlines():
            step, loss = line.split()
            found.setdefault(int(step), set()).add(loss)
        return found

    def assert_equal(self, name: str, reference: "Harness", whole: str = "whole") -> None:
        """Compare a run that was interrupted with one process that was not: rows, losses, emergence; nothing temporary remains."""
        pd.testing.assert_frame_equal(self.rows(name), reference.rows(whole), check_exact=True)
        assert self.losses(name) == reference.losses(whole) and len(reference.losses(whole)) == self.steps
        run, other = self.folder / "runs" / name, reference.folder / "runs" / whole
        assert (run / "emergence.json").read_text() == (other / "emergence.json").read_text()
        assert (run / "report.html").is_file() and not list(run.rglob("*.unfinished"))
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == sorted(
            ["last.ckpt", *(f"step={self.steps - back}.ckpt" for back in (0, 2))]
        )
        states = [torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (run, other)]
        assert states[0]["global_step"] == self.steps
        assert all(torch.equal(states[0]["state_dict"][key], value) for key, value in states[1]["state_dict"].items())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Harness, list[str]]:
    """An unbroken run, whose single process continued past all of its checkpoints, and the names of its moments in order."""
    import diffusers
    import transformers

    import afterglow.cli.lightning_cli  # noqa: F401

    _ = diffusers.UNet2DConditionModel, diffusers.DDPMScheduler, transformers.AutoModel, transformers.BertModel
    harness = Harness(tmp_path_factory.mktemp("whole"), {"WANDB_MODE": "disabled"})
    file = harness.folder / "moments"

    def before() -> None:
        class Written(Moments):
            def reach(self, name: str) -> None:
                with open(file, "a") as stream:
                    stream.write(f"{name}\n")

        watch_all(Written(None, kill_now))

    assert harness.train("whole", "--checkpoint.save_top_k", "-1", before=before) == 0, harness.text("whole")
    return harness, file.read_text().splitlines()
