"""What the evaluations of a training consist of: requests, seeds, confirmations and the comparison with the raw weights."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from afterglow.analysis.emergence import NUM_CONFIRMATIONS, num_confirmations_needed
from afterglow.analysis.emergence_table import IN_MASK, IN_REGION, WHOLE, memorized_history
from afterglow.errors import AfterglowError, require, require_positive
from afterglow.evaluation.build_requests import copyable_targets
from afterglow.evaluation.denoising_loss import denoising_loss_rows
from afterglow.evaluation.evaluate import Processes, evaluate, model_measures
from afterglow.evaluation.false_positives import false_positive_rows
from afterglow.evaluation.measurements import EvaluationResult
from afterglow.evaluation.outpainting import OUTPAINTED_MEASURES, RESAMPLINGS, OutpaintingRequest, outpainting_requests
from afterglow.evaluation.phantom_maps import phantom_map_rows
from afterglow.evaluation.requests import GenerationPlan, PlantedRequest, UnconditionalRequest
from afterglow.evaluation.whole_model import copying_rows, denoising_gap_rows, neighbor_rows
from afterglow.kinds import PLANTED
from afterglow.measures.registry import FIRST_MEASURES, check_families, filter_measures, requirements
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.plants import PlantedSet
from afterglow.planting.targets import evaluation_targets, unconditional_targets
from afterglow.sampling.batches import fitting_batch
from afterglow.sampling.loop import Sampler

SEED_OFFSET = 1000  # between the seeds of an evaluation and of each of its confirmations
TrainingRequest = PlantedRequest | UnconditionalRequest
_MEMORIZED = ("calibrated_l2", "memorized")  # all that is measured of the raw weights and of confirmations


@dataclass(frozen=True)
class EvaluationSettings:
    """The settings of all evaluations of a training.

    Args:
        sampler: how images are generated, the same at every evaluation.
        final_seeds: generations per caption at the last evaluation.
        seeds: generations per caption at all other evaluations.
        num_controls: control captions at the last evaluation.
        num_heldout: held-out captions at every evaluation.
        num_unprompted: generations per evaluation of a model without text.
        num_audited: generations per evaluation that are compared with every training image, to tell which of them are copied; 0: none.
        resamplings: how many times outpainting repeats each sampler step, for a model without text; 0: no outpainting.
        batch_size: generations per batch; 0: as many as fill half of a GPU's free memory, at most 512; at most 32 on a CPU.
        measures: names of measures, with wildcards ('ld.be.*'); `afterglow measure --list` prints all.
        final_measures: names of measures at the last evaluation; null: the same. '*' includes those that need extra passes.
        curvature_vectors: K of Hutchinson's estimator, for curvature.
    """

    sampler: Sampler = Sampler()
    final_seeds: int = 4
    seeds: int = 2
    num_controls: int = 64
    num_heldout: int = 8
    num_unprompted: int = 256
    num_audited: int = 0
    resamplings: int = RESAMPLINGS
    batch_size: int = 0
    measures: Sequence[str] = FIRST_MEASURES
    final_measures: Sequence[str] | None = None
    curvature_vectors: int = 16

    def __post_init__(self) -> None:
        for name in ("seeds", "final_seeds", "num_unprompted", "curvature_vectors"):
            require_positive(**{f"monitor.{name}": getattr(self, name)})
        for name in ("num_controls", "num_heldout", "num_audited", "resamplings", "batch_size"):
            require(f"monitor.{name}", getattr(self, name), getattr(self, name) >= 0, "at least 0")
        check_families(self.measures, "monitor.measures")
        check_families(self.final_measures or (), "monitor.final_measures")

    def on(self, model: Denoiser) -> "EvaluationSettings":
        """The settings with the size of a batch that fits a model on its device."""
        return self if self.batch_size else replace(self, batch_size=fitting_batch(model))

    def patterns(self, last: bool) -> Sequence[str]:
        """The measures of the last evaluation, or of one before."""
        return self.measures if self.final_measures is None or not last else self.final_measures


@dataclass(frozen=True)
class TrainingEvaluation:
    """Evaluates a model during its training.

    Args:
        settings: seeds, counts and measures.
        planted: the training set, whose denoising losses are measured.
        reconstructed: the same as reconstructed by the model's autoencoder, with which generations are compared.
        gallery: the reconstructed images, for neighbors.
        load_early: loads the early state of a model for early_difference.
        processes: the processes that share the generations.
    """

    settings: EvaluationSettings
    planted: PlantedSet
    reconstructed: PlantedSet
    gallery: Gallery
    load_early: Callable[[Denoiser], Denoiser]
    processes: Processes = Processes()

    def request(self, model: Denoiser, *, last: bool) -> TrainingRequest:
        """Everything that is generated at an evaluation; controls at the last one only.

        Raises:
            AfterglowError: if there is nothing to ask a model with captions for.
        """
        if not model.has_text:
            targets = unconditional_targets(self.reconstructed, self.settings.num_unprompted)
            candidates = copyable_targets(self.reconstructed)
            return UnconditionalRequest(targets=targets, candidates=candidates, gallery=self.gallery, append=True)
        num_controls = self.settings.num_controls if last else 0
        targets = evaluation_targets(self.reconstructed, num_controls=num_controls, num_heldout=self.settings.num_heldout)
        if not targets:
            raise AfterglowError(
                "Nothing is planted and no held-out image is evaluated: raise --data.planting.num_heldout and --monitor.num_heldout."
            )
        shapes = {plant.shape: plant.mask for plant in self.planted.of_kind("local")}
        return PlantedRequest(targets=targets, gallery=self.gallery, shapes=shapes)

    def outpainting(self, model: Denoiser, *, last: bool) -> list[OutpaintingRequest]:
        """What a model without text is asked to complete, if anything is planted; controls and held-out images at the last evaluation."""
        if model.has_text or model.is_latent or not self.settings.resamplings or not self.planted.of_kind(*PLANTED):
            return []
        num_controls, resamplings = self.settings.num_controls if last else 0, self.settings.resamplings
        return outpainting_requests(self.reconstructed, num_controls=num_controls, resamplings=resamplings, gallery=self.gallery)

    def run(self, model: Denoiser, *, last: bool) -> EvaluationResult:
        """One evaluation with completions, denoising losses and numbers of the whole model; without text the last has two controls more."""
        request, patterns = self.request(model, last=last), self.settings.patterns(last)
        result = self._evaluate(model, request, patterns, last=last)
        parts = [result, *(self._evaluate(model, part, OUTPAINTED_MEASURES, last=last) for part in self.outpainting(model, last=last))]
        losses = denoising_loss_rows(model, self.planted, batch_size=self.settings.batch_size)
        copying = copying_rows(result.generations, self.gallery, self.reconstructed.pixels[self.reconstructed.heldout])
        controls = []
        if last and isinstance(request, UnconditionalRequest):
            controls.append(false_positive_rows(self.reconstructed, self.gallery))
            controls.append(phantom_map_rows(result.generations, request.candidates, self.gallery, patterns))
        neighbors = neighbor_rows(self.gallery) if last else pd.DataFrame()
        frames = [*(part.measurements for part in parts), losses, denoising_gap_rows(losses), copying, *controls, neighbors]
        return replace(result, measurements=pd.concat(frames, ignore_index=True))

    def raw_weights(self, model: Denoiser) -> pd.DataFrame:
        """ema_off.<measure>: whether the weights without averaging memorize too."""
        rows = self._evaluate(model, self.request(model, last=False), _MEMORIZED, last=False).measurements
        rows = rows[rows["measure"].isin((*_MEMORIZED, "plant_memorized"))]
        return rows.assign(measure="ema_off." + rows["measure"])

    def confirmations(self, model: Denoiser, history: pd.DataFrame) -> list[pd.DataFrame]:
        """confirm.N of the plants that the last two evaluations leave undecided, from new seeds (docs/methods.md#emergence).

        Args:
            model: the final weights.
            history: measurements of all evaluations, the last one included.
        """
        frames = list(self._confirm(model, self.request(model, last=False), history, IN_MASK, IN_REGION, WHOLE))
        for request in self.outpainting(model, last=False):
            frames += self._confirm(model, request, history, f".{request.name}")
        return frames

    def _confirm(self, model: Denoiser, request: TrainingRequest, history: pd.DataFrame, *within: str) -> Iterator[pd.DataFrame]:
        """The confirmations of one request, whose plants are evaluated in `within`."""
        needed: dict[int, int] = {}
        for name in within:
            for plant_id, (_, memorized) in memorized_history(history, name).items():
                needed[plant_id] = max(needed.get(plant_id, 0), num_confirmations_needed(memorized))
        targets = request.candidates if isinstance(request, UnconditionalRequest) else request.targets
        for turn in range(NUM_CONFIRMATIONS):
            undecided = {target.plant_id for target in targets if needed.get(target.plant_id, 0) > turn}
            if not undecided:
                return
            first_seed = max(SEED_OFFSET, self.settings.num_unprompted) * (turn + 1)
            rows = self._evaluate(model, request.only(undecided), _MEMORIZED, last=True, first_seed=first_seed).measurements
            rows = rows[rows["measure"].str.startswith("plant_memorized") & rows["plant_id"].isin(undecided)]
            yield rows.assign(measure=rows["measure"].str.replace("plant_memorized", f"confirm.{turn + 1}"))

    def compares_early(self, model: Denoiser) -> bool:
        """Whether the last evaluation needs an early state of the model."""
        return self._needs_early(model, self.settings.patterns(last=True))

    def _needs_early(self, model: Denoiser, patterns: Sequence[str]) -> bool:
        requires = requirements(filter_measures(model_measures(model, self.settings.sampler.steps), patterns))
        return any(need.startswith("extras.early_difference") for need in requires)

    def _evaluate(
        self, model: Denoiser, request: TrainingRequest, patterns: Sequence[str], *, last: bool, first_seed: int = 0
    ) -> EvaluationResult:
        settings = self.settings
        plan = GenerationPlan(settings.final_seeds if last else settings.seeds, first_seed)
        return evaluate(
            model,
            request,
            settings.sampler,
            patterns,
            plan=GenerationPlan(1, first_seed, "prompt") if isinstance(request, UnconditionalRequest) else plan,
            batch_size=settings.batch_size,
            curvature_vectors=settings.curvature_vectors,
            early=self.load_early(model) if self._needs_early(model, patterns) else None,
            processes=self.processes,
        )
