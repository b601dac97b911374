"""The audit of the training images at the evaluations of a training (docs/guides/audit.md#training)."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from afterglow import keys
from afterglow.analysis.audit import NO_COPY, since
from afterglow.analysis.audit_result import COPIED, AuditResult, audit_facts, confirmed, named_rows, shown_pairs
from afterglow.callbacks.training_evaluation import EvaluationSettings
from afterglow.errors import reading
from afterglow.evaluation.audit import audit_captions, audit_generations, audit_request, num_calibrating
from afterglow.evaluation.audited_set import trained_images
from afterglow.evaluation.evaluate import Processes, generate_with_ground_truth
from afterglow.evaluation.requests import GenerationPlan
from afterglow.generations import Generations
from afterglow.kinds import TRAINED
from afterglow.models.denoiser import Denoiser
from afterglow.planting.plants import PlantedSet

log = logging.getLogger(__name__)

MAX_ON_PAGE = 100  # images of the page
FOLDER = "audit"  # of a run


class TrainingAudit:
    """Asks at each evaluation which training images are copied: the same captions, with new seeds so that chance does not repeat itself.

    Args:
        folder: run folder.
        settings: num_audited and the sampler.
        planted: the training set as the model's autoencoder reconstructs it; its held-out images are the control.
        model: the model that is trained.
        processes: the processes that share the generations.
        steps: evaluated steps; the rows of others are dropped, since a resumed training repeats them.

    Raises:
        AfterglowError: if the set has no held-out images.
    """

    def __init__(
        self,
        folder: Path,
        settings: EvaluationSettings,
        planted: PlantedSet,
        model: Denoiser,
        processes: Processes,
        steps: Collection[int],
    ) -> None:
        self.folder, self.settings, self.processes = folder / FOLDER, settings, processes
        self.images, self.planted = trained_images(planted), bool(planted.of_kind(*TRAINED))
        captions = audit_captions(model, self.images.captions, settings.num_audited)
        self.request = audit_request(model, self.images, captions)
        file = self.folder / "audit.parquet"
        before = _read_rows(file) if file.is_file() else pd.DataFrame({"checkpoint": []})
        self.rows = before[before["checkpoint"].isin([_name(step) for step in steps])]
        self.warned = any(self._confirmed())

    def _confirmed(self) -> list[list[str]]:
        """The confirmed copies at each evaluation but the first."""
        rows = self.rows[self.rows["checkpoint"] == _name(0)] if len(self.rows) else self.rows
        before = set(rows.loc[rows["verdict"] != NO_COPY, "file_name"]) if len(rows) else set()
        return [[name for name in names if name not in before] for names in confirmed(self.rows)]

    def sample(self, model: Denoiser, step: int) -> Generations:
        """The generations of the evaluation at a step, on every process."""
        samples = GenerationPlan(1, step, "prompt").samples(range(len(self.request.targets)))
        return generate_with_ground_truth(
            model, self.request, samples, self.settings.sampler, self.request.capture,
            batch_size=self.settings.batch_size, processes=self.processes,
        )  # fmt: skip

    def record(self, generations: Generations, step: int, epoch: float, logger: Any, *, last: bool) -> None:
        """Compare the images with the training set, write the folder `audit` of the run, log, and warn at the first confirmed copy.

        A copy is confirmed if the image is copied at this evaluation and at the one before, but not before the first step: what a model
        shows that has not seen the images is not copied from them.

        Args:
            generations: of this evaluation.
            step: its training step.
            epoch: epochs trained until then.
            logger: RunLogger or None.
            last: whether it is the last evaluation, which logs the table.
        """
        images, prompts = self.images, list(self.request.captions)
        names, captions = images.names[: images.count], images.captions[: images.count]
        table, unseen = audit_generations([generations], self.request, images)
        rows = named_rows(table, names, captions, prompts, unseen, images.pixels.shape[-1], _name(step))
        tables = [part for name, part in self.rows.groupby("checkpoint", sort=False) if name != _name(step)] + [rows]
        rows["since"] = since([part["checkpoint"].iloc[0] for part in tables], [part["verdict"] for part in tables])
        self.rows = pd.concat(tables, ignore_index=True)
        pairs = shown_pairs(rows, images.pixels, lambda number: generations.images[number].numpy(), MAX_ON_PAGE)
        settings: dict[str, Any] = {"images": len(names), "held-out images": len(images.names) - images.count}
        if not self.planted:
            settings["times each image was shown"] = f"{epoch:.0f}"
        neighbors = num_calibrating(self.request.gallery)
        facts = audit_facts(unseen, held_out=True, captions=captions, prompts=prompts, settings=settings, neighbors=neighbors)
        result = AuditResult(self.rows, facts, pairs)
        result.save(self.folder)
        copies = next(reversed(self._confirmed()), [])
        if copies and not self.warned:
            text = warning(copies, step)
            log.warning("%s", text)
            if logger is not None:
                logger.alert("First copy of a training image confirmed", text)
        self.warned = self.warned or bool(copies)
        if logger is not None:
            logger.log_metrics({keys.audit(verdict): result.count(verdict) / len(names) for verdict in COPIED}, step=step)
        if logger is not None and last:
            _log_table(logger, result, step)


def warning(copies: list[str], step: int) -> str:
    """One sentence that names the first confirmed copy.

    >>> warning(["cat.png", "dog.png"], 200)
    "'cat.png' is copied at step 200 and at the evaluation before, and 1 other image as well."
    """
    others = f", and {len(copies) - 1:,} other image{'s' * (len(copies) > 2)} as well" if copies[1:] else ""
    return f"'{copies[0]}' is copied at step {step} and at the evaluation before{others}."


def _log_table(logger: Any, result: AuditResult, step: int) -> None:
    """The images that the page shows, each beside its copy or nearest generation."""
    pairs, rows = result.pairs, result.rows[result.rows["checkpoint"] == _name(step)].reset_index(drop=True)
    assert pairs.plant_id is not None and pairs.references is not None and pairs.eval_mask is not None
    shown = rows.loc[pairs.plant_id.tolist()].drop(columns=["cells", "checkpoint"])
    images = list(torch.stack([pairs.references, pairs.images], 1).numpy())
    logger.log_rows(keys.AUDIT_TABLE, {name: shown[name].tolist() for name in shown}, images, list(pairs.eval_mask[:, 0].numpy()), step)


def _read_rows(file: Path) -> pd.DataFrame:
    with reading(file, "an audit"):
        return pd.read_parquet(file)


def _name(step: int) -> str:
    return f"step={step}"
