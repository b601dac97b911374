"""Processor time of a training on one core, estimated from ten steps and one evaluation.

    python benchmarks/recipe_time.py --config RECIPE --OPTION VALUE     # options of `afterglow train`; no run folder is made

Builds the set and the network of a recipe, takes ten optimizer steps, of which two warm up, and evaluates the model once, completely. The
median step is multiplied by the recipe's number of steps, the evaluation by that of its evaluations. The last evaluation has more seeds
and controls; its seconds are taken to grow with its passes through the network. Not counted: measures of the last evaluation alone,
confirmations, the page and W&B. Seconds are those of the process on one thread (time.process_time): waits for a core that another process
has do not count, but a step takes more of them while other processes use the caches.
"""

import sys
import time
from typing import Any

import numpy as np
import torch

from afterglow.callbacks.budget import Workload
from afterglow.callbacks.schedule import evaluation_steps
from afterglow.callbacks.training_evaluation import TrainingEvaluation
from afterglow.cli import lightning_cli, main
from afterglow.cli.dry_run import DryRun

WARM_UP = 2  # steps that are left out


class ProcessorTime(DryRun):
    """A dry run that counts seconds of the process and does a whole evaluation."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begin = self._mark = time.process_time()  # the libraries are loaded and the set is built

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.process_time()
        self.seconds.append(now - self._mark)
        self._mark = now

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        model, monitor, data = pl_module.eval().model, self.monitor, trainer.datamodule
        steps = evaluation_steps(self.max_steps, ratio=monitor.step_ratio, first=monitor.first_fraction)
        gallery = data.planted.gallery(model.device)
        evaluation = TrainingEvaluation(monitor.settings.on(model), data.planted, data.planted, gallery, lambda same: same)
        work = Workload.of(evaluation, model, len(steps), self.max_steps * data.batch_size)
        begin = time.process_time()
        evaluation.run(model, last=False)
        one = time.process_time() - begin
        evaluating = one * work.total(evaluation.settings) / work.passes(evaluation.settings, last=False)
        step = float(np.median(self.seconds[WARM_UP:]))
        training, measured = step * self.max_steps, len(self.seconds) - WARM_UP
        total = self.begin + training + evaluating
        self.lines = [
            f"Start:      {self.begin:.0f} s",
            f"Step:       {step:.3f} s, median of {measured}; {self.max_steps:,} steps: {training / 60:.1f} min",
            f"Evaluation: {one:.1f} s, measured once; {len(steps)} evaluations: {evaluating / 60:.1f} min",
            f"Estimated:  {total / 60:.0f} minutes of processor time on one core",
        ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    lightning_cli.DryRun = ProcessorTime  # type: ignore[misc]
    main(["train", *sys.argv[1:], "--dry-run"])
