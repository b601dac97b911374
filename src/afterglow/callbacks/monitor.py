"""One look at the model at a training step: generate for fixed captions and seeds, judge, write, log."""

import json
import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from torch import Tensor

from afterglow.analysis import emergence
from afterglow.analysis.emergence_table import REGION, WHOLE, emergence_of, emergence_summary, memorized_history
from afterglow.analysis.summary import summarize
from afterglow.callbacks.clock import Clock
from afterglow.callbacks.early_snapshot import load_early_snapshot, save_early_snapshot
from afterglow.callbacks.early_stop import EarlyStop
from afterglow.callbacks.media import show
from afterglow.callbacks.schedule import evaluation_steps
from afterglow.evaluation.denoising_loss_rows import denoising_loss_rows
from afterglow.evaluation.ground_truth import attach_ground_truth
from afterglow.evaluation.matching import match_to_plants
from afterglow.evaluation.measurement_table import MeasurementTable
from afterglow.evaluation.measurements import captured, in_region, judge, memorized_in
from afterglow.evaluation.patches import with_patch_distance
from afterglow.evaluation.result import EvaluationResult
from afterglow.generations import Generations
from afterglow.kinds import COPYABLE
from afterglow.measures.registry import ANY_MEASURES, FIRST_MEASURES, Measure, chosen, maps_of, named, requirements, scores_of
from afterglow.planting.targets import Target, evaluation_targets, unconditional_targets
from afterglow.sampling.loop import Sampler, cross_attention_of, generate
from afterglow.sampling.observers import NEEDS_TEXT
from afterglow.sampling.recorder import capture_for

log = logging.getLogger(__name__)

SEED_OFFSET = 1000  # of each fresh set of seeds with which the last probes are confirmed
COPIES = ("calibrated_l2", "memorized")  # all that is asked of the raw weights and of confirmations
SHOWN_KINDS = ("global", "local", "natural", "phantom", "decoy", "control")


class MemorizationMonitor(L.Callback):
    """Watches which plants a model comes to memorize. It follows WarmupEMA in the list of callbacks and looks at its average.

    Args:
        sampler: how images are generated, the same at every probe.
        final_seeds: generations of each caption at the last probe.
        seeds: generations of each caption at the probes before.
        num_controls: control captions at the last probe.
        inner_controls: control captions at the probes before.
        num_heldout: held-out captions at every probe, and images whose denoising loss is measured.
        num_unprompted: generations at a probe of a model without text.
        step_ratio: largest ratio of the steps of neighboring probes.
        first_fraction: the first probe after step 0, as a share of the run.
        batch_size: generations in one batch.
        logged_maps: maps whose masks are shown at every probe; the last probe shows all.
        measures: names of measures (wildcards as in 'ld.be.*') at every probe; `analysis/measure.py --list` names them all.
        final_measures: names at the last probe, where other than these; '*' also asks for what costs calls of its own.
        curvature_vectors: K of Hutchinson's estimate, where curvature is asked for.
        early_fraction: the share of the run whose checkpoint early_difference compares with.
        early_stop: what ends the training before its last step; the probe at which it does is then the last one.
    """

    def __init__(
        self,
        sampler: Sampler = Sampler(),
        final_seeds: int = 4,
        seeds: int = 2,
        num_controls: int = 64,
        inner_controls: int = 0,
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
        self.sampler, self.final_seeds, self.seeds = sampler, final_seeds, seeds
        self.num_controls, self.inner_controls = num_controls, inner_controls
        self.num_heldout, self.num_unprompted = num_heldout, num_unprompted
        self.step_ratio, self.first_fraction, self.batch_size = step_ratio, first_fraction, batch_size
        self.logged_maps = tuple(logged_maps)
        self.measures = tuple(measures)
        self.final_measures = self.measures if final_measures is None else tuple(final_measures)
        self.curvature_vectors, self.early_fraction, self.early_stop = curvature_vectors, early_fraction, early_stop
        self.stopped = False  # by `stop`, at a probe of this run
        self.share = (0, 1)  # set by the door from the launcher
        self.ema: Any = None  # the callback that averages the weights; set by the door
        self.clock = Clock()
        self.fractions: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.clock.elapsed, "probing": self.clock.probing, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.resume(state_dict["elapsed"], state_dict["probing"])
        self.stopped = self.early_stop.monitor is not None and state_dict.get("stopped", False)  # without `stop` it goes on

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder = Path(trainer.default_root_dir)
        self.planted = trainer.datamodule.planted  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            self.planted.reconstructed(pl_module.reconstruct)  # which a latent model keeps for the other processes
        trainer.strategy.barrier()
        self.seen = self.planted.reconstructed(pl_module.reconstruct)
        self.gallery = self.seen.gallery(pl_module.device)
        self.steps = evaluation_steps(trainer.max_steps, ratio=self.step_ratio, first=self.first_fraction)
        self.clock.start()
        for patterns in (self.measures, self.final_measures):
            named(self._table(pl_module) + ANY_MEASURES, patterns)
        self.rows = MeasurementTable(self.folder / "measurements.parquet")
        self.rows.forget_after(trainer.global_step)
        if not self.rows.has(trainer.global_step):
            self._look_if_due(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.rows.has(trainer.global_step):  # accumulated batches share a step
            self._look_if_due(trainer, pl_module)

    def _look_if_due(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if trainer.global_step not in self.steps:
            return
        if trainer.global_step == 0:
            log.info("Looking at the model before its first step; the bar of the training follows.")
        with self.clock.probe():
            was_training = model.training
            model.eval()
            with trainer.precision_plugin.forward_context():
                look, rows, last = self._seen(trainer, model)
            model.train(was_training)
            if self.ema:
                trainer.logger.log_metrics({"measure/ema_window": self.ema.window}, step=trainer.global_step)  # type: ignore[union-attr]
            self._keep(trainer, rows, look, last)
        if self.stopped:  # between two checkpoints
            trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")

    def _seen(self, trainer: L.Trainer, model: L.LightningModule) -> tuple[EvaluationResult, pd.DataFrame, bool]:
        """What the averaged weights show, with the rows of confirmations and of the raw weights at the last probe; whether this was it."""
        ema = self.ema
        last = trainer.global_step == self.steps[-1]
        with ema.averaged(model) if ema else nullcontext():
            if not last:
                look, rows = self._numbers(model, last)
                last = self._stops(trainer, rows)
            if not self.stopped and self._keeps_early(model, trainer.global_step) and trainer.is_global_zero:
                save_early_snapshot(model, self.folder)
            if last:
                look, rows = self._numbers(model, last)
                rows = pd.concat([rows, *self._confirm(model, look.rows)], ignore_index=True)
        if last and ema:
            raw = self._look(model, self._asked(model, last=False), COPIES).rows
            raw = raw[raw["measure"].isin((*COPIES, "plant_memorized"))]
            rows = pd.concat([rows, raw.assign(measure="ema_off." + raw["measure"])], ignore_index=True)
        return look, rows, last

    def _numbers(self, model: Any, last: bool) -> tuple[EvaluationResult, pd.DataFrame]:
        """What a probe sees, and its rows."""
        look = self._look(model, self._asked(model, last), self.final_measures if last else self.measures)
        return look, pd.concat([look.rows, denoising_loss_rows(model, self.planted, batch_size=self.batch_size)], ignore_index=True)

    def _stops(self, trainer: L.Trainer, rows: pd.DataFrame) -> bool:
        """Whether the training ends at this probe, which is then looked at again as the last one."""
        step = trainer.global_step
        emerged = trainer.strategy.broadcast(self.early_stop.emerged(rows) if step else [])  # one answer for all processes
        if emerged:
            log.info("The training ends at step %d, by %s: %s.", step, self.early_stop.monitor, ", ".join(emerged))
            self.stopped = trainer.should_stop = True
            self.steps = [known for known in self.steps if known <= step]
        return self.stopped

    def _asked(self, model: Any, last: bool) -> list[tuple[Target, int]]:
        """Subject and seed of every generation of a probe."""
        if not model.has_text:
            return [(subject, seed) for seed, subject in enumerate(unconditional_targets(self.seen, self.num_unprompted))]
        controls = self.num_controls if last else self.inner_controls
        about = evaluation_targets(self.seen, num_controls=controls, num_heldout=self.num_heldout)
        return [(subject, seed) for subject in about for seed in range(self.final_seeds if last else self.seeds)]

    def _table(self, model: Any) -> list[Measure]:
        """Every measure there could be of this model."""
        layers = cross_attention_of(model)
        return scores_of(layers, layers, self.sampler.steps) + maps_of(layers, self.sampler.steps)

    def _compares_early(self, model: Any) -> bool:
        return any(need.startswith("extras.early_difference") for need in requirements(chosen(self._table(model), self.final_measures)))

    def _keeps_early(self, model: Any, step: int) -> bool:
        """Whether this is the first probe after the share `early` of the run; or any before, where the training may stop at the next."""
        due = next(known for known in self.steps if known >= self.early_fraction * self.steps[-1])
        return self._compares_early(model) and (step == due or (self.early_stop.monitor is not None and step < due))

    def _look(self, model: Any, asked: Sequence[tuple[Target, int]], patterns: Sequence[str]) -> EvaluationResult:
        about = [subject for subject, _ in asked]
        requires = requirements(chosen(self._table(model), patterns))
        generations = attach_ground_truth(self._generate(model, asked, requires), about, self.gallery)
        if "extras.patch_distance" in requires:
            generations = with_patch_distance(generations, self.gallery)
        caught = generations if model.has_text else self._assigned(generations)
        if not model.has_text and len(caught):
            generations = Generations.cat([generations, caught])
        rows, maps, thresholds = judge(generations, patterns)
        if not model.has_text:
            rows = rows[(rows["measure"] != "plant_memorized") | (rows["kind"] == "unprompted")]
            rows = pd.concat([rows, captured(caught, self._plants(), len(asked))], ignore_index=True)
        frames = [rows]
        halves = [row for row, one in enumerate(about) if one.kind == "global" and not one.region.all()]
        if halves:
            inside = [replace(about[row], mask=about[row].region) for row in halves]
            frames.append(in_region(attach_ground_truth(generations[halves], inside, self.gallery)))
        controls = [row for row, subject in enumerate(about) if subject.kind == "control"]
        for shape, mask in self._planted_shapes().items() if controls else ():
            judged = attach_ground_truth(generations[controls], [about[row] for row in controls], self.gallery, mask=mask)
            frames.append(memorized_in(judged, shape))
        return EvaluationResult(pd.concat(frames, ignore_index=True), generations, maps, thresholds)

    def _generate(self, model: Any, asked: Sequence[tuple[Target, int]], requires: Collection[str]) -> Generations:
        """Every process makes its share of the generations and receives the whole."""
        missing = NEEDS_TEXT if not model.has_text else ()
        capture = capture_for(
            {need for need in requires if need.partition(".")[2] not in missing}, curvature_vectors=self.curvature_vectors
        )
        early = load_early_snapshot(model, self.folder) if "early_difference" in capture.extras else None
        first, stride = self.share
        padded = list(asked) + [asked[-1]] * (-len(asked) % stride)
        mine = padded[first::stride]
        captions, seeds = [subject.caption for subject, _ in mine], [seed for _, seed in mine]
        generations = generate(model, captions, seeds, self.sampler, capture, batch_size=self.batch_size, early=early)
        if stride == 1:
            return generations

        def whole(tensor: Tensor, dim: int) -> Tensor:
            parts = model.all_gather(tensor)  # [stride, ..., B / stride, ...], in turns
            return parts.movedim(0, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, len(asked))

        return replace(generations.map(whole), caption=tuple(subject.caption for subject, _ in asked))

    def _plants(self) -> list[Target]:
        """What the generations of a model without text can be copies of, beside the training images."""
        return [subject for subject in evaluation_targets(self.seen, num_controls=0, num_heldout=0) if subject.kind in COPYABLE]

    def _assigned(self, generations: Generations) -> Generations:
        """The generations that copy a plant (or seem to copy a phantom), judged as its own; of each the nearest."""
        plants = self._plants()
        if not plants:
            return generations[[]]
        which, near = match_to_plants(generations.images, plants, self.gallery)
        rows = (near < 1).nonzero()[:, 0].tolist()
        return attach_ground_truth(generations[rows], [plants[int(which[row])] for row in rows], self.gallery) if rows else generations[[]]

    def _planted_shapes(self) -> dict[str, np.ndarray]:
        return {plant.shape: plant.mask for plant in self.planted.of_kind("local")}

    def _confirm(self, model: Any, rows: pd.DataFrame) -> list[pd.DataFrame]:
        """The confirmations that the last two probes lack, with fresh sets of seeds on the final weights."""
        history = pd.concat([self.rows.table, rows.assign(step=self.steps[-1])], ignore_index=True)
        needed: dict[int, int] = {}
        for within in (WHOLE, REGION):
            for number, (_, seen) in memorized_history(history, within).items():
                needed[number] = max(needed.get(number, 0), emergence.num_confirmations_needed(seen))
        watched = self._asked(model, last=False)  # kinds that only the last probe looks at have no emergence to confirm
        about = {subject.plant_id: subject for subject, _ in watched} if model.has_text else {p.plant_id: p for p in self._plants()}
        frames = []
        for turn in range(emergence.NUM_CONFIRMATIONS):
            again = {number: subject for number, subject in about.items() if needed.get(number, 0) > turn}
            if not again:
                break
            first = max(SEED_OFFSET, self.num_unprompted) * (turn + 1)
            asked = [(subject, first + seed) for subject in again.values() for seed in range(self.final_seeds)]
            if not model.has_text:
                asked = [(subject, first + seed) for subject, seed in watched]
            found = self._look(model, asked, COPIES).rows
            found = found[found["measure"].str.startswith("plant_memorized") & found["plant_id"].isin(set(again))]
            frames.append(found.assign(measure=found["measure"].str.replace("plant_memorized", f"confirm.{turn + 1}")))
        return frames

    def _keep(self, trainer: L.Trainer, rows: pd.DataFrame, look: EvaluationResult, last: bool) -> None:
        step = trainer.global_step
        epoch = step * trainer.datamodule.batch_size / trainer.datamodule.samples.epoch_length  # type: ignore[attr-defined]
        rows = rows.assign(step=step, epoch=epoch, seconds=self.clock.elapsed, value=rows["value"].astype(np.float32).astype(np.float64))
        summary = summarize(rows)
        self.fractions = {kind: summary[f"memorized/{kind}"] for kind in SHOWN_KINDS if f"memorized/{kind}" in summary}
        self.rows.add(rows, write=trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        look.save(self.folder / "maps" / f"step={step}.safetensors")
        if last:
            look.generations.save(self.folder / "generations" / f"step={step}")
        logger = trainer.logger
        if logger is not None:
            logger.log_metrics(summary, step=step)
            show(logger, look, rows, step, maps=None if last else self.logged_maps)
        if last:
            found = emergence_of(self.rows.table)
            (self.folder / "emergence.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
            if logger is not None:
                logger.summarize(emergence_summary(found))  # type: ignore[attr-defined]
