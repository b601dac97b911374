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

from afterglow.collect import NEEDS_TEXT, Sampler, annotate, assign, capture_for, generate, text_layers, with_patch_distance
from afterglow.data.subjects import CAPTURED, Subject, subjects, unprompted
from afterglow.evidence import Evidence
from afterglow.measures import emergence
from afterglow.measures.history import REGION, WHOLE, emergence_of, emergence_summary, memorized_history
from afterglow.measures.summary import summarize
from afterglow.measures.table import ANY_MEASURES, FIRST_MEASURES, Measure, chosen, maps_of, named, needs_of, scores_of
from afterglow.probes.clock import Clock
from afterglow.probes.early import early_model, keep_early
from afterglow.probes.judge import captured, in_region, judge, memorized_in
from afterglow.probes.look import Look
from afterglow.probes.losses import loss_rows
from afterglow.probes.rows import ProbeRows
from afterglow.probes.schedule import probe_steps
from afterglow.probes.show import show
from afterglow.probes.stop import Stop

log = logging.getLogger(__name__)

SEED_OFFSET = 1000  # of each fresh set of seeds with which the last probes are confirmed
COPIES = ("calibrated", "memorized")  # all that is asked of the raw weights and of confirmations
SHOWN_KINDS = ("global", "local", "natural", "phantom", "decoy", "control")


class Probe(L.Callback):
    """Watches which plants a model comes to memorize. It follows RampedAverage in the list of callbacks and looks at its average.

    Args:
        sampler: how pictures are generated, the same at every probe.
        seeds: generations of each caption at the last probe.
        inner_seeds: generations of each caption at the probes before.
        controls: control captions at the last probe.
        inner_controls: control captions at the probes before.
        heldout: held-out captions at every probe, and pictures whose denoising loss is measured.
        unprompted: generations at a probe of a model without text.
        ratio: largest ratio of the steps of neighbouring probes.
        first: the first probe after step 0, as a share of the run.
        batch_size: generations in one batch.
        shown_maps: maps whose masks are shown at every probe; the last probe shows all.
        measures: names of measures (wildcards as in 'ld.be.*') at every probe; `analysis/measure.py --list` names them all.
        last_measures: names at the last probe, where other than these; '*' also asks for what costs calls of its own.
        curvature_vectors: K of Hutchinson's estimate, where curvature is asked for.
        early: the share of the run whose checkpoint early_difference compares with.
        stop: what ends the training before its last step; the probe at which it does is then the last one.
    """

    def __init__(
        self,
        sampler: Sampler = Sampler(),
        seeds: int = 4,
        inner_seeds: int = 2,
        controls: int = 64,
        inner_controls: int = 0,
        heldout: int = 8,
        unprompted: int = 256,
        ratio: float = 1.5,
        first: float = 0.02,
        batch_size: int = 64,
        shown_maps: Sequence[str] = ("score_difference.summed", "end_token.last.first_eos.be", "end_token.last.first_eos.all"),
        measures: Sequence[str] = FIRST_MEASURES,
        last_measures: Sequence[str] | None = None,
        curvature_vectors: int = 16,
        early: float = 0.1,
        stop: Stop = Stop(),
    ) -> None:
        self.sampler, self.seeds, self.inner_seeds = sampler, seeds, inner_seeds
        self.controls, self.inner_controls = controls, inner_controls
        self.heldout, self.unprompted, self.ratio, self.first, self.batch_size = heldout, unprompted, ratio, first, batch_size
        self.shown_maps = tuple(shown_maps)
        self.measures = tuple(measures)
        self.last_measures = self.measures if last_measures is None else tuple(last_measures)
        self.curvature_vectors, self.early, self.stop = curvature_vectors, early, stop
        self.stopped = False  # by `stop`, at a probe of this run
        self.share = (0, 1)  # set by the door from the launcher
        self.average: Any = None  # the callback that averages the weights; set by the door
        self.clock = Clock()
        self.fractions: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.clock.elapsed, "probing": self.clock.probing, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.resume(state_dict["elapsed"], state_dict["probing"])
        self.stopped = self.stop.at is not None and state_dict.get("stopped", False)  # without `stop` it goes on

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder = Path(trainer.default_root_dir)
        self.planted = trainer.datamodule.planted  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            self.planted.decoded(pl_module.round_trip)  # which a latent model keeps for the other processes
        trainer.strategy.barrier()
        self.seen = self.planted.decoded(pl_module.round_trip)
        self.gallery = self.seen.gallery(pl_module.device)
        self.steps = probe_steps(trainer.max_steps, ratio=self.ratio, first=self.first)
        self.clock.start()
        for patterns in (self.measures, self.last_measures):
            named(self._table(pl_module) + ANY_MEASURES, patterns)
        self.rows = ProbeRows(self.folder / "probes.parquet")
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
            if self.average:
                trainer.logger.log_metrics({"probe/average_window": self.average.window}, step=trainer.global_step)  # type: ignore[union-attr]
            self._keep(trainer, rows, look, last)
        if self.stopped:  # between two checkpoints
            trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")

    def _seen(self, trainer: L.Trainer, model: L.LightningModule) -> tuple[Look, pd.DataFrame, bool]:
        """What the averaged weights show, with the rows of confirmations and of the raw weights at the last probe; whether this was it."""
        average = self.average
        last = trainer.global_step == self.steps[-1]
        with average.averaged(model) if average else nullcontext():
            if not last:
                look, rows = self._numbers(model, last)
                last = self._stops(trainer, rows)
            if not self.stopped and self._keeps_early(model, trainer.global_step) and trainer.is_global_zero:
                keep_early(model, self.folder)
            if last:
                look, rows = self._numbers(model, last)
                rows = pd.concat([rows, *self._confirm(model, look.rows)], ignore_index=True)
        if last and average:
            raw = self._look(model, self._asked(model, last=False), COPIES).rows
            raw = raw[raw["measure"].isin((*COPIES, "plant_memorized"))]
            rows = pd.concat([rows, raw.assign(measure="raw." + raw["measure"])], ignore_index=True)
        return look, rows, last

    def _numbers(self, model: Any, last: bool) -> tuple[Look, pd.DataFrame]:
        """What a probe sees, and its rows."""
        look = self._look(model, self._asked(model, last), self.last_measures if last else self.measures)
        return look, pd.concat([look.rows, loss_rows(model, self.planted, batch_size=self.batch_size)], ignore_index=True)

    def _stops(self, trainer: L.Trainer, rows: pd.DataFrame) -> bool:
        """Whether the training ends at this probe, which is then looked at again as the last one."""
        step = trainer.global_step
        emerged = trainer.strategy.broadcast(self.stop.emerged(rows) if step else [])  # one answer for all processes
        if emerged:
            log.info("The training ends at step %d, by %s: %s.", step, self.stop.at, ", ".join(emerged))
            self.stopped = trainer.should_stop = True
            self.steps = [known for known in self.steps if known <= step]
        return self.stopped

    def _asked(self, model: Any, last: bool) -> list[tuple[Subject, int]]:
        """Subject and seed of every generation of a probe."""
        if not model.has_text:
            return [(subject, seed) for seed, subject in enumerate(unprompted(self.seen, self.unprompted))]
        controls = self.controls if last else self.inner_controls
        about = subjects(self.seen, num_controls=controls, num_heldout=self.heldout)
        return [(subject, seed) for subject in about for seed in range(self.seeds if last else self.inner_seeds)]

    def _table(self, model: Any) -> list[Measure]:
        """Every measure there could be of this model."""
        layers = text_layers(model)
        return scores_of(layers, layers, self.sampler.steps) + maps_of(layers, self.sampler.steps)

    def _compares_early(self, model: Any) -> bool:
        return any(need.startswith("derived.early_difference") for need in needs_of(chosen(self._table(model), self.last_measures)))

    def _keeps_early(self, model: Any, step: int) -> bool:
        """Whether this is the first probe after the share `early` of the run; or any before, where the training may stop at the next."""
        due = next(known for known in self.steps if known >= self.early * self.steps[-1])
        return self._compares_early(model) and (step == due or (self.stop.at is not None and step < due))

    def _look(self, model: Any, asked: Sequence[tuple[Subject, int]], patterns: Sequence[str]) -> Look:
        about = [subject for subject, _ in asked]
        needs = needs_of(chosen(self._table(model), patterns))
        evidence = annotate(self._generate(model, asked, needs), about, self.gallery)
        if "derived.patch_distance" in needs:
            evidence = with_patch_distance(evidence, self.gallery)
        caught = evidence if model.has_text else self._assigned(evidence)
        if not model.has_text and len(caught):
            evidence = Evidence.cat([evidence, caught])
        rows, maps, thresholds = judge(evidence, patterns)
        if not model.has_text:
            rows = rows[(rows["measure"] != "plant_memorized") | (rows["kind"] == "unprompted")]
            rows = pd.concat([rows, captured(caught, self._plants(), len(asked))], ignore_index=True)
        frames = [rows]
        halves = [row for row, one in enumerate(about) if one.kind == "global" and not one.region.all()]
        if halves:
            inside = [replace(about[row], mask=about[row].region) for row in halves]
            frames.append(in_region(annotate(evidence[halves], inside, self.gallery)))
        controls = [row for row, subject in enumerate(about) if subject.kind == "control"]
        for shape, mask in self._planted_shapes().items() if controls else ():
            judged = annotate(evidence[controls], [about[row] for row in controls], self.gallery, mask=mask)
            frames.append(memorized_in(judged, shape))
        return Look(pd.concat(frames, ignore_index=True), evidence, maps, thresholds)

    def _generate(self, model: Any, asked: Sequence[tuple[Subject, int]], needs: Collection[str]) -> Evidence:
        """Every process makes its share of the generations and receives the whole."""
        missing = NEEDS_TEXT if not model.has_text else ()
        capture = capture_for({need for need in needs if need.partition(".")[2] not in missing}, curvature_vectors=self.curvature_vectors)
        early = early_model(model, self.folder) if "early_difference" in capture.derived else None
        first, stride = self.share
        padded = list(asked) + [asked[-1]] * (-len(asked) % stride)
        mine = padded[first::stride]
        captions, seeds = [subject.caption for subject, _ in mine], [seed for _, seed in mine]
        evidence = generate(model, captions, seeds, self.sampler, capture, batch_size=self.batch_size, early=early)
        if stride == 1:
            return evidence

        def whole(tensor: Tensor, dim: int) -> Tensor:
            parts = model.all_gather(tensor)  # [stride, ..., B / stride, ...], in turns
            return parts.movedim(0, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, len(asked))

        return replace(evidence.map(whole), caption=tuple(subject.caption for subject, _ in asked))

    def _plants(self) -> list[Subject]:
        """What the generations of a model without text can be copies of, beside the training pictures."""
        return [subject for subject in subjects(self.seen, num_controls=0, num_heldout=0) if subject.kind in CAPTURED]

    def _assigned(self, evidence: Evidence) -> Evidence:
        """The generations that copy a plant (or seem to copy a phantom), judged as its own; of each the nearest."""
        plants = self._plants()
        if not plants:
            return evidence[[]]
        which, near = assign(evidence.images, plants, self.gallery)
        rows = (near < 1).nonzero()[:, 0].tolist()
        return annotate(evidence[rows], [plants[int(which[row])] for row in rows], self.gallery) if rows else evidence[[]]

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
            first = max(SEED_OFFSET, self.unprompted) * (turn + 1)
            asked = [(subject, first + seed) for subject in again.values() for seed in range(self.seeds)]
            if not model.has_text:
                asked = [(subject, first + seed) for subject, seed in watched]
            found = self._look(model, asked, COPIES).rows
            found = found[found["measure"].str.startswith("plant_memorized") & found["plant_id"].isin(set(again))]
            frames.append(found.assign(measure=found["measure"].str.replace("plant_memorized", f"confirmation.{turn + 1}")))
        return frames

    def _keep(self, trainer: L.Trainer, rows: pd.DataFrame, look: Look, last: bool) -> None:
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
            look.evidence.save(self.folder / "evidence" / f"step={step}")
        logger = trainer.logger
        if logger is not None:
            logger.log_metrics(summary, step=step)
            show(logger, look, rows, step, maps=None if last else self.shown_maps)
        if last:
            found = emergence_of(self.rows.table)
            (self.folder / "emergence.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
            if logger is not None:
                logger.summarize(emergence_summary(found))  # type: ignore[attr-defined]
