"""The Lightning callback that evaluates memorization during a training."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from afterglow import keys
from afterglow.analysis.emergence_table import emergence_summary
from afterglow.analysis.summary import summarize_evaluation
from afterglow.callbacks.alerts import alert_first_emerged
from afterglow.callbacks.budget import Workload
from afterglow.callbacks.early_stop import EarlyStop
from afterglow.callbacks.media import log_media
from afterglow.callbacks.nonfinite import diverged
from afterglow.callbacks.preemption import save_now
from afterglow.callbacks.run_files import RunFiles, load_early_snapshot, save_early_snapshot
from afterglow.callbacks.schedule import Clock, evaluation_steps
from afterglow.callbacks.training_audit import TrainingAudit
from afterglow.callbacks.training_evaluation import EvaluationSettings, TrainingEvaluation
from afterglow.errors import DivergedError, require, require_fraction
from afterglow.evaluation.evaluate import Processes, required_inputs
from afterglow.evaluation.measurements import EvaluationResult
from afterglow.measures.registry import check_families
from afterglow.signals import Stopped

log = logging.getLogger(__name__)

MAX_PAGES = 16  # reports of one run that are logged; a run with more evaluations leaves some out, evenly
SHOWN_KINDS = ("global", "local", "natural", "phantom")  # what fits into the line of the progress bar


class MemorizationMonitor(L.Callback):
    """Measures during training which plants the model memorizes. It evaluates the averaged weights of WarmupEMA.

    Args:
        step_ratio: largest ratio of the steps of two neighboring evaluations.
        first_fraction: the first evaluation after step 0, as a fraction of the training.
        budget: largest fraction of the training's passes through the network that evaluations may use. If they would use more, all
            evaluations have fewer generations per caption and the last one fewer controls, and the log and the page say so; every plant is
            still evaluated at every step, but from fewer samples: its step of emergence and the false-positive rate are less certain.
            The choice depends on the options alone, not on the machine; 1: nothing is left out.
        logged_maps: maps whose masks are logged at every evaluation; the last evaluation logs all.
        early_fraction: fraction of the training whose weights early_difference compares with.
        early_stop: criterion that ends the training before its last step, with the last evaluation at that step.
        settings: what an evaluation consists of.
    """

    def __init__(
        self,
        step_ratio: float = 1.5,
        first_fraction: float = 0.02,
        budget: float = 0.2,
        logged_maps: Sequence[str] = ("score_difference.summed", "end_token.last.first_eos.be", "end_token.last.first_eos.all"),
        early_fraction: float = 0.1,
        early_stop: EarlyStop = EarlyStop(),
        **settings: Any,
    ) -> None:
        evaluation_steps(1, ratio=step_ratio, first=first_fraction)  # raises AfterglowError if they are out of range
        require_fraction(early_fraction=early_fraction)
        require("monitor.budget", budget, 0 < budget <= 1, "a number above 0, at most 1")
        check_families(logged_maps, "monitor.logged_maps")
        self.settings = EvaluationSettings(**settings)
        self.step_ratio, self.first_fraction, self.early_fraction, self.budget = step_ratio, first_fraction, early_fraction, budget
        self.logged_maps, self.early_stop = tuple(logged_maps), early_stop
        self.stopped = False  # by `early_stop`
        # set by the command: the process, the callback that averages the weights, what writes the report, whether there is a limit of time,
        # and a function that raises Stopped after a signal and returns whether that time is over
        self.rank, self.world_size = 0, 1
        self.ema: Any = None
        self.after_evaluation: Callable[..., Any] | None = None
        self.summaries: dict[int, dict[str, float]] = {}  # of the evaluations of this process, for the report
        self.time_limited = False
        self.check: Callable[[], bool] = lambda: False
        self.clock = Clock()
        self.fractions: dict[str, float] = {}  # memorized fraction per kind, for the progress bar
        self._checked_step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.clock.elapsed, "evaluation": self.clock.evaluation, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.resume(state_dict["elapsed"], state_dict["evaluation"])
        self.stopped = self.early_stop.monitor is not None and state_dict["stopped"]  # without `early_stop` the training goes on

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin(trainer, pl_module)
        self._evaluate_if_due(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._evaluate_if_due(trainer, pl_module)
        if trainer.global_step == self._checked_step:  # accumulated batches share a step
            return
        self._checked_step = trainer.global_step
        if self.check() and not self.stopped and trainer.global_step < trainer.max_steps:
            self._end_by_time(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning does not begin a training without remaining steps, whose last evaluation a signal may have ended
        step = trainer.global_step
        if self.clock.running or step != trainer.max_steps or RunFiles(Path(trainer.default_root_dir), step).table.has(step):
            return
        pl_module.to(trainer.strategy.root_device)
        self._begin(trainer, pl_module)
        self._evaluate_if_due(trainer, pl_module)

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare all evaluations, and undo the last evaluation of a shorter training that this one continues."""
        model: Any = pl_module.model
        folder, step = Path(trainer.default_root_dir), trainer.global_step
        self.steps = evaluation_steps(trainer.max_steps, ratio=self.step_ratio, first=self.first_fraction)
        self.files = RunFiles(folder, step)
        planted = trainer.datamodule.planted  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            planted.reconstructed(model.reconstruct)  # a latent model caches the result for the other processes
        trainer.strategy.barrier()
        if step < self.steps[-1]:
            self.files.reopen(step, write=trainer.is_global_zero)
        reconstructed = planted.reconstructed(model.reconstruct)
        processes = Processes(self.rank, self.world_size, pl_module.all_gather)
        load_early = partial(load_early_snapshot, folder=folder)
        settings = self.settings.on(model)
        evaluation = TrainingEvaluation(settings, planted, reconstructed, reconstructed.gallery(model.device), load_early, processes)
        work = Workload.of(evaluation, model, len(self.steps), trainer.max_steps * trainer.datamodule.batch_size)  # type: ignore[attr-defined]
        self.evaluation = replace(evaluation, settings=work.within(settings, self.budget))
        if self.evaluation.settings != settings:
            log.info("%s", work.describe(settings, self.budget))
        chosen, steps = self.evaluation.settings, self.files.measurements["step"].unique().tolist()
        audited = chosen.num_audited > 0
        self.audit = TrainingAudit(folder, chosen, reconstructed, model, processes, steps) if audited else None
        for last in (False, True):  # refuse unknown names before the training begins
            required_inputs(model, self.settings.sampler.steps, self.settings.patterns(last), strict=False)
        self.clock.start()

    def _end_by_time(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the training at this step with a last evaluation, which a resumed training drops."""
        step = trainer.global_step
        log.info("trainer.max_time is over at step %d of %d: the last evaluation follows.", step, trainer.max_steps)
        save_now(trainer)
        trainer.should_stop = True
        self.files.table.drop_after(step - 1)
        self.steps = [known for known in self.steps if known < step] + [step]
        self._evaluate_if_due(trainer, pl_module)

    def _evaluate_if_due(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if step not in self.steps or self.files.table.has(step):  # accumulated batches share a step
            return
        if step == 0:
            log.info("Evaluating the model before the first step; the progress bar follows.")
        with self.clock.evaluating():
            was_training = pl_module.training
            pl_module.eval()
            model: Any = pl_module.model
            # what reads the network while it runs does not see a compiled one
            eager = torch.compiler.set_stance("force_eager") if model.compiles else nullcontext()
            with trainer.precision_plugin.forward_context(), self._can_stop(trainer, model), eager:
                result, last = self._evaluate(trainer, pl_module)
            pl_module.train(was_training)
            self._record(trainer, result, last)

    @contextmanager
    def _can_stop(self, trainer: L.Trainer, model: Any) -> Iterator[None]:
        """A context that a signal ends before the next call of the network; the resumed training repeats the evaluation."""

        def check(*_: Any) -> None:
            self.check()

        try:
            with model.unet.register_forward_pre_hook(check):
                yield
        except Stopped:
            self.stopped = False
            raise
        except DivergedError as error:
            raise diverged(trainer, f"the evaluation failed, since {str(error).rstrip('.')}", trainer.global_step) from error

    def _evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> tuple[EvaluationResult, bool]:
        """Evaluate the averaged weights, at the last evaluation also with new seeds and the raw weights; whether it was the last."""
        model: Any = pl_module.model
        step, frames = trainer.global_step, []
        last = step == self.steps[-1]
        with self.ema.averaged(pl_module) if self.ema else nullcontext():
            if not last:
                result = self.evaluation.run(model, last=False)
                last = self._stops(trainer, result.measurements)
            if not trainer.should_stop and self._keeps_early(model, step) and trainer.is_global_zero:
                save_early_snapshot(model, self.files.folder)
            if last:
                result = self.evaluation.run(model, last=True)
                history = [self.files.measurements, result.measurements.assign(step=step)]
                frames += self.evaluation.confirmations(model, pd.concat(history, ignore_index=True))
            self.audited = self.audit.sample(model, step) if self.audit else None
        if last and self.ema:
            frames.append(self.evaluation.raw_weights(model))
        return replace(result, measurements=pd.concat([result.measurements, *frames], ignore_index=True)), last

    def _stops(self, trainer: L.Trainer, measurements: pd.DataFrame) -> bool:
        """Whether the training ends at this step, which is then evaluated again as the last one."""
        step = trainer.global_step
        emerged = trainer.strategy.broadcast(self.early_stop.emerged(measurements) if step else [])  # one decision for all processes
        if emerged:
            log.info("Early stopping at step %d by %s: %s.", step, self.early_stop.monitor, ", ".join(emerged))
            self.stopped = trainer.should_stop = True
            self.steps = [known for known in self.steps if known <= step]
        return self.stopped

    def _keeps_early(self, model: Any, step: int) -> bool:
        """Whether to save the early weights: at the first evaluation after early_fraction, or before it if the training may stop."""
        due = next(known for known in self.steps if known >= self.early_fraction * self.steps[-1])
        may_stop = self.time_limited or self.early_stop.monitor is not None
        return self.evaluation.compares_early(model) and (step == due or (may_stop and step < due))

    def _record(self, trainer: L.Trainer, result: EvaluationResult, last: bool) -> None:
        """Write and log the result."""
        step, rows = trainer.global_step, result.measurements
        epoch = step * trainer.datamodule.batch_size / trainer.datamodule.samples.epoch_length  # type: ignore[attr-defined]
        values = rows["value"].astype(np.float32).astype(np.float64)  # as they are read from the file
        result = replace(result, measurements=rows.assign(step=step, epoch=epoch, seconds=self.clock.elapsed, value=values))
        summary = self.summaries[step] = summarize_evaluation(result.measurements)
        self.fractions = {kind: summary[keys.memorized_fraction(kind)] for kind in SHOWN_KINDS if keys.memorized_fraction(kind) in summary}
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in summary.items()})  # for checkpoint.monitor
        if self.audit and self.audited and trainer.is_global_zero:  # first: a killed training repeats an evaluation without measurements
            self.audit.record(self.audited, step, epoch, trainer.logger, last=last)
        self.files.table.add(result.measurements, write=trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        emergence = self.files.write(result, step, last=last)
        if self.after_evaluation is not None:
            self.after_evaluation(self.files.folder, rows=self.files.measurements, summaries=self.summaries)
        logger: Any = trainer.logger
        if logger is None:
            return
        logger.log_metrics(summary | ({keys.EMA_WINDOW: self.ema.window} if self.ema else {}), step=step)
        log_media(logger, result, step, maps=None if last else self.logged_maps)
        page = self.files.folder / "report.html"
        if page.is_file() and (last or self.steps.index(step) % math.ceil(len(self.steps) / MAX_PAGES) == 0):
            logger.log_page(page, step)
        alert_first_emerged(logger, self.files.measurements, step)
        if emergence is not None:
            logger.summarize(emergence_summary(emergence))
