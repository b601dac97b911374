"""`afterglow train --dry-run`: everything is built, a few optimizer steps and one small evaluation run, and no run folder is made."""

import os
import resource
import time
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from afterglow import distributed
from afterglow.callbacks.budget import Workload
from afterglow.callbacks.ema import WarmupEMA
from afterglow.callbacks.monitor import MemorizationMonitor
from afterglow.callbacks.nonfinite import NonFinite
from afterglow.callbacks.schedule import evaluation_steps
from afterglow.callbacks.training_evaluation import TrainingEvaluation
from afterglow.errors import AfterglowError, require
from afterglow.evaluation.evaluate import Processes, evaluate
from afterglow.evaluation.requests import GenerationPlan
from afterglow.functional.pixels import to_signed
from afterglow.reports.tables import duration

DRY_STEPS, ENOUGH_SECONDS = 10, 2.0  # the steps end after this time, but not before the second one
KEPT = (WarmupEMA, NonFinite)  # the callbacks of a training that take part
LATENT_IMAGES = 8  # whose encoding is timed


def take_processes(trainer: Any) -> int:
    """The number of processes that the Trainer's options ask for; if one process was started, the options are replaced by one device.

    Raises:
        AfterglowError: the devices are not a number.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    count = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdecimal() else devices
    require("trainer.devices", devices, isinstance(count, int) and count >= 1, "a number of devices")
    require("trainer.num_nodes", nodes, isinstance(nodes, int) and nodes >= 1, "at least 1")
    if distributed.rank_and_world_size()[1] == 1 and count * nodes > 1:
        trainer.devices, trainer.num_nodes, trainer.strategy = 1, 1, "auto"
    return count * nodes


class DryRun(L.Callback):
    """Measures the steps and the evaluation of a dry run.

    Args:
        monitor: what an evaluation consists of, and when the training is evaluated.
        max_steps: optimizer steps of the whole training.
        processes: number of processes of the training; if this is the only one, it does the work of the first of them.
    """

    def __init__(self, monitor: MemorizationMonitor, max_steps: int, processes: int) -> None:
        self.monitor, self.max_steps, self.processes = monitor, max_steps, processes
        self.option = "data.batch_size"  # that decides the memory of what runs now
        self.seconds: list[float] = []  # of each step
        self.memory: list[int] = []  # peak after the steps and after the evaluation, bytes
        self.lines: list[str] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        unused = [name for name, weight in pl_module.named_parameters() if weight.requires_grad and weight.grad is None]
        if unused and self.processes > 1:
            raise AfterglowError(f"{unused[0]} is trained but not used, which several processes do not support: train it with one.")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == len(self.seconds):  # accumulated batches share a step
            return
        _wait(trainer.strategy.root_device)
        now = time.perf_counter()
        self.seconds.append(now - self._mark)
        self._mark = now
        enough = trainer.strategy.broadcast(len(self.seconds) >= 2 and sum(self.seconds) > ENOUGH_SECONDS)
        trainer.should_stop = trainer.should_stop or enough

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model: Any = pl_module.eval().model
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        device, monitor, planted = trainer.strategy.root_device, self.monitor, data.planted
        self.memory.append(_peak_memory(device))
        self.option = "monitor.batch_size"
        steps = evaluation_steps(self.max_steps, ratio=monitor.step_ratio, first=monitor.first_fraction)
        processes = Processes(monitor.rank, self.processes, pl_module.all_gather if trainer.world_size > 1 else self._repeated)
        settings = monitor.settings.on(model)
        evaluation = TrainingEvaluation(settings, planted, planted, planted.gallery(model.device), lambda same: same, processes)
        samples = self.max_steps * data.batch_size
        work = Workload.of(evaluation, model, len(steps), samples)
        evaluation = replace(evaluation, settings=work.within(settings, monitor.budget))
        with trainer.precision_plugin.forward_context():
            taken, generations = self._evaluate(model, evaluation)
            encoding = _encoding_seconds(model, data, samples)
        self.memory.append(_peak_memory(device))
        pace = taken / (evaluation.settings.sampler.steps * generations * (2 if model.has_text else 1))
        step = float(np.median(self.seconds[1:] or self.seconds))
        evaluating, training = pace * work.total(evaluation.settings), step * self.max_steps
        trained = sum(weight.numel() for weight in pl_module.parameters() if weight.requires_grad)
        share = f"{data.batch_size // self.processes} of the {data.batch_size} samples of a step"
        share += " (this one did the work of the first)" if self.processes > trainer.world_size else ""
        self.lines = [
            f"Model:      {type(model).__name__}, {trained:,} trained parameters, {trainer.precision} on {device}",
            f"Processes:  {self.processes}, each with {share}",
            f"Memory:     {_gib(self.memory[0])} after {len(self.seconds)} steps, {_gib(self.memory[1])} after the evaluation, "
            f"of {_gib(_memory(device))}",
            f"Step:       {step:.3g} seconds; {self.max_steps:,} steps: {duration(training)}",
            f"Evaluation: {taken:.3g} seconds for {generations} generations; {work.evaluations} evaluations: {duration(evaluating)}",
            *([f"Encoding:   {duration(encoding)} for all images, once"] if encoding else []),
            f"Expected:   {duration(training + evaluating + encoding)}, {evaluating / (training + evaluating):.0%} of it in evaluations",
        ]
        if evaluation.settings != settings:
            self.lines.append(work.describe(settings, monitor.budget))

    def _evaluate(self, model: Any, evaluation: TrainingEvaluation) -> tuple[float, int]:
        """Evaluate as many targets as fill one batch of each process, and two of them with all measures of the last evaluation.

        Returns:
            Seconds of the first, and its number of generations.
        """
        settings, full = evaluation.settings, evaluation.request(model, last=False)
        plan = GenerationPlan(settings.seeds if model.has_text else 1)
        count = max(1, settings.batch_size * self.processes // plan.num_images)
        seconds = []
        for targets, last in ((full.targets[:count], False), (full.targets[:2], True)):
            begin = time.perf_counter()
            evaluate(
                model, replace(full, targets=targets), settings.sampler, settings.patterns(last), plan=plan, early=model,
                batch_size=settings.batch_size, curvature_vectors=settings.curvature_vectors, processes=evaluation.processes,
            )  # fmt: skip
            seconds.append(time.perf_counter() - begin)
        return seconds[0], len(full.targets[:count]) * plan.num_images

    def _repeated(self, tensor: Tensor) -> Tensor:
        """What the other processes would give."""
        return tensor.expand(self.processes, *tensor.shape)

    def run(self, trainer: L.Trainer, module: L.LightningModule, data: Any) -> str:
        """Do the dry run; what was measured, in lines.

        Raises:
            AfterglowError: something cannot work, or the memory of a GPU does not suffice.
        """
        kept = [callback for callback in trainer.callbacks if isinstance(callback, KEPT)]  # type: ignore[attr-defined]
        trainer.callbacks = [*kept, self]  # type: ignore[attr-defined]
        try:
            trainer.fit(module, data)
        except torch.OutOfMemoryError as error:
            where = trainer.strategy.root_device
            raise AfterglowError(f"The memory of {where} ({_gib(_memory(where))}) does not suffice: lower {self.option}.") from error
        return "\n".join(self.lines)


def _encoding_seconds(model: Any, data: Any, samples: int) -> float:
    """Seconds in which a latent model will encode and decode the images of its training once, estimated from a few; else 0."""
    if not model.is_latent:
        return 0.0
    pixels = to_signed(torch.from_numpy(np.array(data.planted.pixels[:LATENT_IMAGES]))).to(model.device)
    marks = [time.perf_counter()]
    for work in (lambda: model.encode(pixels), lambda: model.decode(model.encode(pixels))):
        work()
        _wait(model.device)
        marks.append(time.perf_counter())
    distinct = len(np.unique(data.samples.keys(range(samples)), axis=0)) if model.cache else 0
    return ((marks[1] - marks[0]) * distinct + (marks[2] - marks[1]) * len(data.planted.pixels)) / len(pixels)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    """Bytes at the peak so far: of the GPU's allocator, or of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _memory(device: torch.device) -> int:
    """Bytes of the GPU or of the machine."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
