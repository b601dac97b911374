"""Size of a long run with many plants, and the time that writing its page takes."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterglow.callbacks.training_evaluation import TrainingEvaluation
from afterglow.cli import lightning_cli, main
from afterglow.evaluation.measurements import EvaluationResult

ROOT = Path(__file__).parents[2]
FEW_STEPS = [  # a small model, evaluated after each of its steps
    *("train", "--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml"), "--name", "size"),
    *("--model.unet.block_out_channels", "[8,16]", "--data.set_size", "200", "--checkpoint.every_n_train_steps", "50"),
    *("--trainer.max_steps", "99", "--monitor.step_ratio", "1.001", "--monitor.first_fraction", "0.01", "--monitor.seeds", "1"),
]
PLANTS = [
    *("--data.planting.num_global", "32", "--data.planting.num_local", "32"),
    *("--data.planting.num_decoys", "8", "--data.planting.num_tints", "8"),
]


def with_noise(result: EvaluationResult, generator: torch.Generator) -> EvaluationResult:
    """The evaluation with other measured values, and with noise as images, maps and masks, which takes the most bytes."""
    images = torch.randint(0, 256, result.generations.images.shape, dtype=torch.uint8, generator=generator)
    maps = {name: torch.rand(values.shape, generator=generator) for name, values in result.maps.items()}
    factors = 1 + 0.001 * torch.randn(len(result.measurements), generator=generator, dtype=torch.float64).numpy()
    measured = result.measurements.assign(value=result.measurements["value"].to_numpy() * factors)
    halves = {name: torch.full_like(values, 0.5) for name, values in result.thresholds.items()}
    return EvaluationResult(replace(result.generations, images=images), measured, maps, halves)


def first_and_last_only(run: Callable[..., EvaluationResult]) -> Callable[..., EvaluationResult]:
    """TrainingEvaluation.run, which generates and measures at the first and the last evaluation; the others repeat the first with noise."""
    first, generator = list[EvaluationResult](), torch.Generator().manual_seed(0)

    def evaluated(self: TrainingEvaluation, model: Any, *, last: bool) -> EvaluationResult:
        if not last and first:
            return with_noise(first[0], generator)
        first.append(run(self, model, last=last))
        return first[-1]

    return evaluated


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_run_of_100_evaluations_and_64_plants_is_small_and_says_what_its_page_leaves_out(tmp_path, monkeypatch):
    seconds, write_report = list[float](), lightning_cli.write_report

    def timed(*args: Any, **kwargs: Any) -> None:
        begin = time.thread_time()  # of the CPU, whatever else the machine does
        write_report(*args, **kwargs)
        seconds.append(time.thread_time() - begin)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(TrainingEvaluation, "run", first_and_last_only(TrainingEvaluation.run))
    monkeypatch.setattr(lightning_cli, "write_report", timed)
    main([*FEW_STEPS, *PLANTS])
    run = tmp_path / "runs" / "size"
    assert len(list((run / "maps").iterdir())) == len(seconds) == 100
    files = [path for path in (run / "wandb").rglob("*") if path.is_file() and not path.is_symlink()]
    page, recorded = (run / "report.html").stat().st_size, sum(path.stat().st_size for path in files)
    early, late = (float(np.median(part)) for part in (seconds[20:40], seconds[79:99]))
    print(f"wandb: {len(files)} files, {recorded / 1e6:.0f} MB; page: {page / 1e6:.1f} MB")
    print(f"writing the page, seconds of the CPU (medians): {early:.2f} at evaluations 21 to 40, {late:.2f} at 80 to 99")
    assert recorded < 500e6 and page < 15e6
    assert "84 of the evaluations are left out of the slider, of the samples below and of the numbers" in (run / "report.html").read_text(
        encoding="utf-8"
    )
