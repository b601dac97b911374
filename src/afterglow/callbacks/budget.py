"""How much of a training its evaluations are, and which seeds and controls they leave out (docs/methods.md#budget)."""

from dataclasses import dataclass, replace

from afterglow.callbacks.training_evaluation import EvaluationSettings, TrainingEvaluation
from afterglow.evaluation.denoising_loss import NUM_IMAGES, NUM_TIMES
from afterglow.kinds import COPYABLE
from afterglow.models.denoiser import Denoiser

TRAINING_PASSES = 3  # of a sample in a training step: a backward pass costs about two forward passes
LEFT_OUT = {  # what may be left out, and its name
    "seeds": "generations per caption",
    "final_seeds": "at the last evaluation",
    "num_controls": "controls",
    "num_unprompted": "generations without a caption",
    "num_audited": "audited generations",
}


@dataclass(frozen=True)
class Workload:
    """What a training and its evaluations process, counted in images that pass forward through the network.

    The count depends on the configuration alone: not on the machine, the number of processes or a resume. It leaves out confirmations,
    measures with passes of their own, and what is not the network.

    Args:
        captions: captions of every evaluation; 0 for a model without text.
        completed: outpainted targets of every evaluation.
        controls: controls that the training set has.
        errors: images whose denoising error is measured at every evaluation.
        evaluations: number of evaluations.
        samples: training samples, over all steps.
    """

    captions: int
    completed: int
    controls: int
    errors: int
    evaluations: int
    samples: int

    @classmethod
    def of(cls, evaluation: TrainingEvaluation, model: Denoiser, evaluations: int, samples: int) -> "Workload":
        """The workload of a training of `samples` samples with `evaluations` evaluations."""
        captions = len(evaluation.request(model, last=False).targets) if model.has_text else 0
        completed = sum(len(part.targets) for part in evaluation.outpainting(model, last=False))
        planted = evaluation.planted
        errors = sum(min(NUM_IMAGES, len(rows)) for rows in (planted.heldout, planted.controls)) + len(planted.of_kind(*COPYABLE))
        return cls(captions, completed, len(planted.controls), NUM_TIMES * errors, evaluations, samples)

    def passes(self, settings: EvaluationSettings, *, last: bool) -> int:
        """Images that pass through the network in the last evaluation, or in one before."""
        generations, completions = self._sampled(settings, last)
        passes = settings.sampler.steps * (generations + completions) + self.errors
        return passes + self._raw(settings) if last else passes

    def _raw(self, settings: EvaluationSettings) -> int:
        """Images that pass through the network with the raw weights, of which no guidance is kept."""
        halves = 2 if self.captions and settings.sampler.guidance_scale == 1 else 1
        return settings.sampler.steps * self._sampled(settings, False)[0] // halves

    def _sampled(self, settings: EvaluationSettings, last: bool) -> tuple[int, int]:
        """Images in all batches of one sampler step: of generations, both halves of the guidance counted, and of completions."""
        seeds = settings.final_seeds if last else settings.seeds
        controls = min(settings.num_controls, self.controls) if last else 0
        generations = 2 * seeds * (self.captions + controls) if self.captions else settings.num_unprompted
        generations += settings.num_audited * (2 if self.captions else 1)
        return generations, settings.resamplings * seeds * (self.completed + 2 * controls) if self.completed else 0

    def total(self, settings: EvaluationSettings) -> int:
        """Images that pass through the network in all evaluations."""
        return (self.evaluations - 1) * self.passes(settings, last=False) + self.passes(settings, last=True)

    def share(self, settings: EvaluationSettings) -> float:
        """The part of all passes that the evaluations are; a backward pass counts twice."""
        return self.total(settings) / (self.total(settings) + TRAINING_PASSES * self.samples)

    def within(self, settings: EvaluationSettings, budget: float) -> EvaluationSettings:
        """The settings with the largest percentage of seeds, controls and unprompted images whose share is at most the budget, or 1 %."""
        few = (thinned(settings, percent) for percent in range(100, 0, -1))
        return next((chosen for chosen in few if self.share(chosen) <= budget), thinned(settings, 1))

    def describe(self, settings: EvaluationSettings, budget: float) -> str:
        """One sentence on what `within` leaves out."""
        chosen, pairs = self.within(settings, budget), []
        for name, noun in LEFT_OUT.items():
            if getattr(chosen, name) < getattr(settings, name):
                pairs.append(f"{getattr(chosen, name)} of {getattr(settings, name)} {noun}")
        before, after = self.share(settings), self.share(chosen)
        return (
            f"monitor.budget {budget:g}: evaluations would be {before:.0%} of all passes through the network and are {after:.0%} with "
            f"{', '.join(pairs)}."
        )


def thinned(settings: EvaluationSettings, percent: int) -> EvaluationSettings:
    """The settings with a percentage of the seeds, controls and unprompted images, rounded, but at least one of each that there are."""
    counts = {name: getattr(settings, name) for name in LEFT_OUT}
    return replace(settings, **{name: max(min(1, count), round(count * percent / 100)) for name, count in counts.items()})
