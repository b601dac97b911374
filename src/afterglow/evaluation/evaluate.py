"""The evaluation of a model: generate, attach the ground truth, measure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.evaluation.measurements import EvaluationResult, measure_generations
from afterglow.evaluation.requests import EvalRequest, GenerationPlan, UnconditionalRequest, as_request
from afterglow.generations import Generations
from afterglow.measures.registry import ANY_MEASURES, Measure, filter_measures, list_maps, list_scores, requirements, resolve_names
from afterglow.models.denoiser import Denoiser
from afterglow.models.noise import is_flow
from afterglow.planting.targets import Target
from afterglow.sampling.attention import cross_attention_layers, self_attention_layers
from afterglow.sampling.loop import Sampler, generate, own_scheduler
from afterglow.sampling.observers import EXTRAS_NEEDING_TEXT
from afterglow.sampling.recorder import CaptureConfig, capture_for
from afterglow.sampling.setup import Mitigation

LATENT_GUIDANCE_SCALE = 7.5  # the usual one of Stable Diffusion
TEXT_INPUTS = ("end_attention", "token_attention", *(f"extras.{name}" for name in EXTRAS_NEEDING_TEXT))


@dataclass(frozen=True)
class Processes:
    """The processes that share one evaluation; all_gather: [...] of each process to [world_size, ...] on every process."""

    rank: int = 0
    world_size: int = 1
    all_gather: Callable[[Tensor], Any] = lambda tensor: tensor[None]


def evaluate(
    model: Denoiser,
    targets: EvalRequest | Sequence[Target] | Sequence[str],
    sampler: Sampler | None = None,
    measures: Sequence[str] = ("*",),
    *,
    plan: GenerationPlan | None = None,
    batch_size: int = 64,
    curvature_vectors: int = 16,
    early: Denoiser | None = None,
    mitigation: Mitigation | None = None,
    processes: Processes = Processes(),
) -> EvaluationResult:
    """Generate images for every target, attach their ground truth and measure them.

    Example:
        result = afterglow.evaluate(afterglow.open_model("runs/demo"), ["a red apple"], measures=["guidance_norm.*"])
        result.measurements  # plant_id, kind, caption, seed, measure, value

    Args:
        model: the model that is sampled.
        targets: a request (`planted_request`, `prompt_request`), targets, or captions.
        sampler: how images are generated; default: `build_sampler(model, steps=25)`.
        measures: names of measures, with wildcards; measures whose inputs are missing are absent.
        plan: seeds of each caption; default: four images per caption, one per row of an unconditional request.
        batch_size: generations per batch.
        curvature_vectors: K of Hutchinson's estimator.
        early: an earlier state of the model; without it, early_difference is absent.
        mitigation: changes the sampling of every generation.
        processes: the processes that share the generations; all receive the whole result.

    Raises:
        AfterglowError: if a name matches no measure.
    """
    request, sampler = as_request(targets), sampler or build_sampler(model, steps=25)
    if plan is None:
        plan = GenerationPlan(1, 0, "prompt") if isinstance(request, UnconditionalRequest) else GenerationPlan()
    requires = required_inputs(model, sampler.steps, measures, strict=False)
    generations = generate_with_ground_truth(
        model,
        request.with_inputs(model, requires),
        plan.samples(range(len(request.targets))),
        sampler,
        capture_config(requires, early=early is not None, curvature_vectors=curvature_vectors),
        batch_size=batch_size,
        early=early,
        mitigation=mitigation,
        processes=processes,
    )
    with model.full_precision():
        result = measure_generations(generations, measures)
        return replace(result, measurements=request.complete(result.measurements, generations))


def generate_with_ground_truth(
    model: Denoiser,
    request: EvalRequest,
    samples: Sequence[tuple[int, int]],
    sampler: Sampler,
    capture: CaptureConfig,
    *,
    processes: Processes = Processes(),
    **options: Any,
) -> Generations:
    """Generate the samples, (row of the request, seed) each, and attach their ground truth; options: those of `sampling.generate`."""
    padded = [*samples, *[samples[-1]] * (-len(samples) % processes.world_size)]
    own = padded[processes.rank :: processes.world_size]
    captions, seeds = request.captions, [seed for _, seed in own]
    generations = generate(model, [captions[row] for row, _ in own], seeds, sampler, capture, known=request.known(own), **options)
    if processes.world_size > 1:

        def interleave(tensor: Tensor, dim: int) -> Tensor:
            parts = processes.all_gather(tensor)  # [world_size, ..., B / world_size, ...]
            return parts.movedim(0, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, len(samples))

        generations = replace(generations.map(interleave), caption=tuple(captions[row] for row, _ in samples))
    with model.full_precision():
        return request.annotate(generations, [row for row, _ in samples])


def model_measures(model: Denoiser, num_steps: int) -> list[Measure]:
    """Every measure that a model with these layers can have."""
    layers = cross_attention_layers(model.unet)
    return list_scores(layers, layers, num_steps) + list_maps(layers, num_steps)


def required_inputs(model: Denoiser, num_steps: int, patterns: Sequence[str], *, strict: bool = True) -> set[str]:
    """The inputs that the named measures require of a model.

    Args:
        num_steps: sampler steps.
        patterns: names of measures, with wildcards.
        strict: refuse measures of captions for a model without text, instead of leaving them out.

    Raises:
        AfterglowError: if a name matches no measure; if strict, also if the model cannot have the measure.
    """
    table = model_measures(model, num_steps)
    wanted = resolve_names(table + ANY_MEASURES, patterns)
    impossible = [m.name for m in wanted if "guidance" in m.requires or any(need.startswith(TEXT_INPUTS) for need in m.requires)]
    if strict and not model.has_text and impossible and "*" not in patterns:
        raise AfterglowError(f"{impossible[0]} measures the effect of a caption, and {type(model).__name__} has no captions.")
    requires = requirements(filter_measures(table, patterns))
    if "*" in patterns and not self_attention_layers(model.unet):  # named explicitly, it is an error of the sampling
        requires -= {"extras.self_attention"}
    return requires if model.has_text else {need for need in requires if need.partition(".")[2] not in EXTRAS_NEEDING_TEXT}


def capture_config(
    requires: Collection[str], *, early: bool = False, end_token: str = "first_eos", curvature_vectors: int = 16
) -> CaptureConfig:
    """The capture that provides exactly these inputs of measures (`required_inputs`).

    Args:
        early: whether an earlier state of the model is given; without it early_difference is left out.
        end_token: rule by which local magnitude is weighted: first_eos, last or eos_and_pads.
        curvature_vectors: K of Hutchinson's estimator.
    """
    provided = {need for need in requires if early or not need.startswith("extras.early_difference")}
    return capture_for(provided, end_token=end_token, curvature_vectors=curvature_vectors)


def build_sampler(
    model: Denoiser, *, scheduler: str | None = None, steps: int = 50, guidance_scale: float | None = None, spacing: str | None = None
) -> Sampler:
    """The sampler of a command line; scheduler None: the model's own (`own_scheduler`); guidance_scale None: 7.5 of a latent model, or 1.

    spacing (trailing, leading, linspace) None: a latent model's own, none in flow matching, otherwise trailing.
    """
    if guidance_scale is None:
        guidance_scale = LATENT_GUIDANCE_SCALE if model.is_latent else 1.0
    own = spacing is None and (model.is_latent or is_flow(model.scheduler))
    options = {} if own else {"timestep_spacing": spacing or "trailing"}
    return Sampler(scheduler or own_scheduler(model.scheduler), steps, guidance_scale, options)
