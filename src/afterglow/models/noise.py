"""Noise schedules: how noise is added to clean values, what a network predicts, and which noise a prediction stands for.

At timestep t a sample is x_t = a x_0 + s eps with the levels a (of the signal) and s (of the noise):

- diffusion (Ho et al. 2020): a = sqrt(abar_t), s = sqrt(1 - abar_t); the network predicts eps, or v = a eps - s x_0;
- flow matching (Lipman et al. 2023, Liu et al. 2023): a = 1 - t / N, s = t / N; the network predicts eps - x_0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers  # its classes are imported when they are first used
import torch
from torch import Tensor

from afterglow.errors import require

FLOW = "flow_prediction"
FLOW_SCHEDULERS = "FlowMatch"  # how diffusers' names of samplers for flow matching begin
Formula = Callable[[Tensor, Tensor, Any, Any], Tensor]


@dataclass(frozen=True)
class Prediction:
    """What a network predicts.

    Attributes:
        target: (x_0, eps, a, s) => what the output is compared with.
        noise: (output, x_t, a, s) => the predicted eps.
    """

    target: Formula
    noise: Formula


PREDICTIONS = {
    "epsilon": Prediction(lambda clean, noise, a, s: noise, lambda output, noisy, a, s: output),
    "v_prediction": Prediction(lambda clean, noise, a, s: a * noise - s * clean, lambda output, noisy, a, s: a * output + s * noisy),
    FLOW: Prediction(lambda clean, noise, a, s: noise - clean, lambda output, noisy, a, s: noisy + a * output),
}


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler of diffusers belongs to flow matching."""
    return type(scheduler).__name__.startswith(FLOW_SCHEDULERS)


def is_flow_config(config: Mapping[str, Any]) -> bool:
    """Whether a recipe's or a folder's configuration of a scheduler asks for flow matching."""
    return config.get("prediction_type") == FLOW or str(config.get("_class_name")).startswith(FLOW_SCHEDULERS)


def scheduler_class(config: Mapping[str, Any]) -> Any:
    """The class of diffusers that a model with this configuration of its scheduler is trained with."""
    return diffusers.FlowMatchEulerDiscreteScheduler if is_flow_config(config) else diffusers.DDPMScheduler


def prediction_of(scheduler: Any) -> Prediction:
    """What a network that is trained with a scheduler predicts."""
    return PREDICTIONS[FLOW if is_flow(scheduler) else scheduler.config.prediction_type]


def noise_levels(scheduler: Any, timestep: float | Tensor, like: Tensor) -> tuple[Any, Any]:
    """The levels a and s at a timestep, in the data type of `like`.

    Args:
        scheduler: the scheduler of the training.
        timestep: one for all rows, or [B].
        like: [B, C, h, w].

    Returns:
        Two scalars of the host, for which no device waits, or two tensors [B, 1, 1, 1] on the device of `like`.
    """
    if isinstance(timestep, Tensor):
        timestep = timestep.to(like.device, non_blocking=True).reshape(-1, 1, 1, 1)
    if is_flow(scheduler):
        noise = torch.as_tensor(timestep / scheduler.config.num_train_timesteps).to(like.dtype)
        return 1 - noise, noise
    alpha_bar = scheduler.alphas_cumprod.to(like.dtype)
    places = timestep if isinstance(timestep, Tensor) else int(timestep)
    alpha_bar = (alpha_bar.to(like.device, non_blocking=True) if isinstance(timestep, Tensor) else alpha_bar)[places]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def training_timesteps(scheduler: Any, integers: Tensor) -> Tensor:
    """The timesteps [B] of integers [B] below N, 0 nearest to the clean image: the integers themselves, or in a flow those of its shift."""
    return scheduler.timesteps.flip(0).to(integers.device, non_blocking=True)[integers] if is_flow(scheduler) else integers


def noise_schedule(scheduler: Any) -> Any:
    """Return the scheduler; raise AfterglowError if a model cannot be trained with it."""
    steps = scheduler.config.num_train_timesteps
    require("noise_scheduler: num_train_timesteps", steps, isinstance(steps, int) and steps > 1, "an integer above 1")
    if is_flow(scheduler):
        dynamic, sigmas = scheduler.config.use_dynamic_shifting, scheduler.sigmas
        require("noise_scheduler: use_dynamic_shifting", dynamic, not dynamic, "false, as its shift depends on the image's size")
        valid = bool(((sigmas > 0) & (sigmas <= 1)).all())
        require("noise_scheduler: shift", scheduler.config.shift, valid, "a number above 0")
        return scheduler
    kind, abar = scheduler.config.prediction_type, scheduler.alphas_cumprod
    known = [name for name in PREDICTIONS if name != FLOW]
    require("noise_scheduler: prediction_type", kind, kind in known, f"{', '.join(known)} or {FLOW}")
    valid = len(abar) == steps and bool(((abar >= 0) & (abar <= 1)).all())
    require("noise_scheduler: alpha-bar", f"{abar.min():.3g} to {abar.max():.3g}", valid, f"{steps} numbers from 0 to 1")
    return scheduler
