"""The Lightning callback that evaluates memorization during a training."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from afterglow.callbacks.clock import Clock
from afterglow.callbacks.early_stop import EarlyStop
from afterglow.callbacks.media import log_media
from afterglow.callbacks.run_files import RunFiles, load_early_snapshot, save_early_snapshot
from afterglow.callbacks.schedule import evaluation_steps
from afterglow.callbacks.training_evaluation import EvaluationSettings, TrainingEvaluation
from afterglow.evaluation.evaluate import Processes, required_inputs
from afterglow.evaluation.measurements import EvaluationResult
from afterglow.measures.registry import FIRST_MEASURES
from afterglow.sampling.loop import Sampler

log = logging.getLogger(__name__)

SHOWN_KINDS = ("global", "local", "natural", "phantom", "decoy", "control")


class MemorizationMonitor(L.Callback):
    """Measures during training which plants the model memorizes. It evaluates the averaged weights of WarmupEMA.

    Args:
        sampler: how images are generated, the same at every evaluation.
        final_seeds: generations per caption at the last evaluation.
        seeds: generations per caption at all other evaluations.
        num_controls: control captions at the last evaluation.
        num_heldout: held-out captions at every evaluation.
        num_unprompted: generations per evaluation of a model without text.
        step_ratio: largest ratio of the steps of two neighboring evaluations.
        first_fraction: the first evaluation after step 0, as a fraction of the training.
        batch_size: generations per batch.
        logged_maps: maps whose masks are logged at every evaluation; the last evaluation logs all.
        measures: names of measures, with wildcards ('ld.be.*'); `afterglow measure --list` prints all.
        final_measures: names of measures at the last evaluation; null: the same. '*' includes those that need extra passes.
        curvature_vectors: K of Hutchinson's estimator, for curvature.
        early_fraction: fraction of the training whose weights early_difference compares with.
        early_stop: criterion that ends the training before its last step, with the last evaluation at that step.
    """

    def __init__(
        self,
        sampler: Sampler = Sampler(),
        final_seeds: int = 4,
        seeds: int = 2,
        num_controls: int = 64,
        num_heldout: int = 8,
        num_unprompted: int = 256,
        step_ratio: float = 1.5,
        first_fraction: float = 0.02,
        batch_size: int = 64,
        logged_maps: Sequence[str] = ("score_difference.summed", "end_token.last.first_eos.be", "end_token.last.first_eos.all"),
        measures: Sequence[str] = FIRST_MEASURES,
        final_measures: Sequence[str] | None = None,
        curvature_vectors: int = 16,
        early_fraction: float = 0.1,
        early_stop: EarlyStop = EarlyStop(),
    ) -> None:
        self.settings = EvaluationSettings(
            sampler=sampler,
            measures=tuple(measures),
            final_measures=tuple(measures if final_measures is None else final_measures),
            seeds=seeds,
            final_seeds=final_seeds,
            num_controls=num_controls,
            num_heldout=num_heldout,
            num_unprompted=num_unprompted,
            batch_size=batch_size,
            curvature_vectors=curvature_vectors,
        )
        self.step_ratio, self.first_fraction, self.early_fraction = step_ratio, first_fraction, early_fraction
        self.logged_maps, self.early_stop = tuple(logged_maps), early_stop
        self.stopped = False  # by `early_stop`
        self.rank, self.world_size = 0, 1  # set by the command from the launcher
        self.ema: Any = None  # the callback that averages the weights; set by the command
        self.after_evaluation: Callable[[Path], Any] | None = None  # writes the report; set by the command
        self.clock = Clock()
        self.fractions: dict[str, float] = {}  # memorized fraction per kind, for the progress bar

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.clock.elapsed, "evaluation": self.clock.evaluation, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.resume(state_dict["elapsed"], state_dict["evaluation"])
        self.stopped = self.early_stop.monitor is not None and state_dict["stopped"]  # without `early_stop` the training goes on

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model: Any = pl_module.model
        folder = Path(trainer.default_root_dir)
        planted = trainer.datamodule.planted  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            planted.reconstructed(model.reconstruct)  # a latent model caches the result for the other processes
        trainer.strategy.barrier()
        reconstructed = planted.reconstructed(model.reconstruct)
        processes = Processes(self.rank, self.world_size, pl_module.all_gather)
        load_early = partial(load_early_snapshot, folder=folder)
        self.evaluation = TrainingEvaluation(
            self.settings, planted, reconstructed, reconstructed.gallery(model.device), load_early, processes
        )
        for last in (False, True):  # refuse unknown names before the training begins
            required_inputs(model, self.settings.sampler.steps, self.settings.patterns(last), strict=False)
        self.steps = evaluation_steps(trainer.max_steps, ratio=self.step_ratio, first=self.first_fraction)
        self.files = RunFiles(folder, trainer.global_step)
        self.clock.start()
        self._evaluate_if_due(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
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
            with trainer.precision_plugin.forward_context():
                result, last = self._evaluate(trainer, pl_module)
            pl_module.train(was_training)
            self._record(trainer, result, last)

    def _evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> tuple[EvaluationResult, bool]:
        """Evaluate the averaged weights, at the last evaluation also with new seeds and the raw weights; whether it was the last."""
        model: Any = pl_module.model
        step, frames = trainer.global_step, []
        last = step == self.steps[-1]
        with self.ema.averaged(pl_module) if self.ema else nullcontext():
            if not last:
                result = self.evaluation.run(model, last=False)
                last = self._stops(trainer, result.measurements)
            if not self.stopped and self._keeps_early(model, step) and trainer.is_global_zero:
                save_early_snapshot(model, self.files.folder)
            if last:
                result = self.evaluation.run(model, last=True)
                history = [self.files.measurements, result.measurements.assign(step=step)]
                frames += self.evaluation.confirmations(model, pd.concat(history, ignore_index=True))
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
        return self.evaluation.compares_early(model) and (step == due or (self.early_stop.monitor is not None and step < due))

    def _record(self, trainer: L.Trainer, result: EvaluationResult, last: bool) -> None:
        """Write and log the result."""
        step, rows = trainer.global_step, result.measurements
        epoch = step * trainer.datamodule.batch_size / trainer.datamodule.samples.epoch_length  # type: ignore[attr-defined]
        values = rows["value"].astype(np.float32).astype(np.float64)  # as they are read from the file
        result = replace(result, measurements=rows.assign(step=step, epoch=epoch, seconds=self.clock.elapsed, value=values))
        summary = summarize_evaluation(result.measurements)
        self.fractions = {kind: summary[keys.memorized_fraction(kind)] for kind in SHOWN_KINDS if keys.memorized_fraction(kind) in summary}
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in summary.items()})  # for checkpoint.monitor
        self.files.table.add(result.measurements, write=trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        emergence = self.files.write(result, step, last=last)
        if self.after_evaluation is not None:
            self.after_evaluation(self.files.folder)
        logger: Any = trainer.logger
        if logger is None:
            return
        logger.log_metrics(summary | ({keys.EMA_WINDOW: self.ema.window} if self.ema else {}), step=step)
        log_media(logger, result, step, maps=None if last else self.logged_maps)
        if emergence is not None:
            logger.summarize(emergence_summary(emergence))
