"""The audit of one or more checkpoints of a model, and how long it takes (docs/guides/audit.md)."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.audit import since
from afterglow.analysis.audit_result import AuditResult, audit_facts, named_rows, shown_pairs
from afterglow.cache import take_rows
from afterglow.evaluation.audit import AuditRequest, audit_generations, audit_request, num_calibrating
from afterglow.evaluation.audited_set import AuditedSet
from afterglow.evaluation.extraction import sample_images
from afterglow.evaluation.false_positives import MAX_UNSEEN
from afterglow.generations import Generations, parts_of
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.clusters import near_duplicate_seconds
from afterglow.sampling.loop import Sampler, generate

MAX_SHOWN = 400  # images of the page
NUM_TIMED = 4096  # images that a batch is compared with to know how long all take


def audit_checkpoints(
    models: Iterable[tuple[str, Denoiser]],
    request: AuditRequest,
    images: AuditedSet,
    folder: Path,
    sampler: Sampler,
    *,
    seed: int,
    batch_size: int,
    settings: Mapping[str, Any],
    **processes: int,
) -> AuditResult | None:
    """Sample each model with the same captions and seeds, and compare the images with the training set.

    Args:
        models: name and model of each checkpoint, in the order of the training.
        folder: of the generations, one folder for each checkpoint; an interrupted audit resumes from it.
        settings: what the page names, and what a resumed audit must share.
        processes: rank and world_size; the last of several processes returns the result.

    Returns:
        The result; None if other processes still work on the generations.
    """
    own, prompts, tables, unseen = slice(images.count), list(request.captions), [], None
    for name, model in models:
        plan = sample_images(
            model, request, folder / name, sampler, request.capture,
            seed=seed, batch_size=batch_size, metadata=settings, **processes,
        )  # fmt: skip
        parts = parts_of(folder / name)
        if len(parts) < len(plan.parts(len(prompts))):
            return None
        table, unseen = audit_generations(map(Generations.load, parts), request, images, unseen)
        tables.append(named_rows(table, images.names[own], images.captions[own], prompts, unseen, images.pixels.shape[-1], name))
    assert unseen is not None
    tables[-1]["since"] = since([table["checkpoint"].iloc[0] for table in tables], [table["verdict"] for table in tables])
    num_unseen = len(images.names) - images.count
    settings = {**settings, "held-out images": num_unseen}
    facts = audit_facts(
        unseen, held_out=num_unseen > 0, captions=images.captions[own], prompts=prompts, settings=settings,
        neighbors=num_calibrating(request.gallery),
    )  # fmt: skip
    pairs = shown_pairs(tables[-1], images.pixels, _reader(parts, batch_size), MAX_SHOWN)
    return AuditResult(pd.concat(tables, ignore_index=True), facts, pairs)


def _reader(parts: Sequence[Path], batch_size: int) -> Callable[[int], np.ndarray]:
    """A function that reads the generation of a number, uint8 [C, H, W]; the part that was read last is kept."""

    @lru_cache(maxsize=1)
    def part(number: int) -> np.ndarray:
        return Generations.load(parts[number]).images.numpy()

    return lambda number: part(number // batch_size)[number % batch_size]


def expected_seconds(
    model: Denoiser, images: AuditedSet, captions: Sequence[str], sampler: Sampler, batch_size: int, *, outpaint: bool = False
) -> tuple[float, float]:
    """Seconds that a set takes to be `clustered`, and those that its generations take, sampled and compared.

    Measured on a few steps of one batch and its comparison with the first images, so that a large set is known to take long at once.
    """
    count = len(images.names)
    some = np.arange(min(count, NUM_TIMED))
    few = AuditedSet(take_rows(images.pixels, some), images.captions, images.names, some, min(images.count, NUM_TIMED))
    request = audit_request(model, few, captions[:batch_size], outpaint=outpaint)
    rows = range(len(request.targets))
    seconds: list[float] = []
    for steps in (1, 1, 3):  # the first is a warm-up
        start = time.perf_counter()
        made = generate(
            model, request.captions, rows, replace(sampler, steps=steps), request.capture,
            batch_size=batch_size, known=request.known([(row, row) for row in rows]),
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    request.attach(made, rows)
    comparing = (time.perf_counter() - start) * count / len(some)
    sampling = seconds[1] + max(0.0, seconds[2] - seconds[1]) / 2 * (sampler.steps - 1)
    others = min(MAX_UNSEEN, count) if images.count == count else 0  # images that are compared with each other
    return near_duplicate_seconds(images.pixels), ((sampling + comparing) * len(captions) + comparing * others) / len(rows)
