"""Re-trigger test (Kowalczuk et al. 2026, "Finding DoRI"): does an optimized text embedding bring a copy back after a mitigation?

docs/methods.md#retrigger
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from afterglow.errors import require, require_positive
from afterglow.functional.pixels import to_signed
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import Mitigation, SamplingSetup

_LAST_STEPS = 10  # whose mean loss decides between restarts
_ROWS = 128  # of a batch, images times noises


@dataclass(frozen=True)
class AttackBudget:
    """What an attack may spend on each image; the defaults of steps, learning rate and noises are the authors'.

    Args:
        steps: optimizer steps.
        learning_rate: of Adam, in units of the embedding.
        noises: noises and timesteps drawn for each step.
        restarts: attempts. The first begins at the caption's embedding, the others at Gaussian noise of its scale.
    """

    steps: int = 50
    learning_rate: float = 0.1
    noises: int = 8
    restarts: int = 2

    def __post_init__(self) -> None:
        require_positive(steps=self.steps, noises=self.noises, restarts=self.restarts)
        require("learning_rate", self.learning_rate, self.learning_rate > 0, "greater than 0")


def find_triggers(
    model: Denoiser, captions: Sequence[str], images: Tensor, masks: Tensor, budget: AttackBudget, seed: int = 0
) -> dict[str, Tensor]:
    """Optimize an embedding for each image until the model denoises the image under it; only the embedding changes.

    Args:
        captions: N distinct captions.
        images: what the attack wants back, uint8 [N, C, H, W].
        masks: where it is wanted, bool [N, 1, H, W].
        budget: steps, learning rate, noises and restarts.
        seed: of noises, timesteps and restarts.

    Returns:
        {caption: embedding [L, D]}, of the restart with the lowest denoising error inside the mask over the last steps.
    """
    found, size = dict[str, Tensor](), max(1, _ROWS // budget.noises)
    for start in range(0, len(captions), size):
        rows = slice(start, start + size)
        embeddings = _attack(model, captions[rows], images[rows], masks[rows], budget, torch.Generator().manual_seed(seed + start))
        found.update(zip(captions[rows], embeddings.cpu(), strict=True))
    return found


@torch.enable_grad()
def _attack(
    model: Denoiser, captions: Sequence[str], images: Tensor, masks: Tensor, budget: AttackBudget, generator: torch.Generator
) -> Tensor:
    with torch.no_grad():
        condition, clean = model.condition(captions), model.encode(to_signed(images).to(model.device))
    assert condition is not None
    own = condition.encoder_hidden_states.detach()
    weight = interpolate(masks.float(), clean.shape[-2:], mode="area").to(clean)
    weight = weight / (weight.sum((1, 2, 3), keepdim=True) * clean.shape[1])
    best, lowest = own, torch.full((len(own),), torch.inf, device=own.device)
    for restart in range(budget.restarts):
        begin = own if restart == 0 else torch.randn(own.shape, generator=generator).to(own) * own.std()
        trigger, losses = begin.clone().requires_grad_(), []
        optimizer = torch.optim.Adam([trigger], lr=budget.learning_rate)
        for _ in tqdm(range(budget.steps), desc=f"attack on {len(captions)} images", unit="step"):
            error = _denoising_error(model, replace(condition, encoder_hidden_states=trigger), clean, weight, budget.noises, generator)
            (trigger.grad,) = torch.autograd.grad(error.sum(), trigger)  # rows do not share parameters: each is optimized alone
            optimizer.step()
            losses.append(error.detach())
        reached = torch.stack(losses[-_LAST_STEPS:]).mean(0)
        better = reached < lowest
        best, lowest = torch.where(better[:, None, None], trigger.detach(), best), torch.where(better, reached, lowest)
    return best


def _denoising_error(
    model: Denoiser, condition: TextConditioning, clean: Tensor, weight: Tensor, noises: int, generator: torch.Generator
) -> Tensor:
    """Squared error of the predicted noise inside the mask, mean over new noises and timesteps, [N]."""
    repeated = torch.arange(len(clean), device=clean.device).repeat_interleave(noises)
    timesteps = torch.randint(len(model.scheduler), (len(repeated),), generator=generator).to(clean.device)
    noise = torch.randn(len(repeated), *clean.shape[1:], generator=generator).to(clean)
    noisy = model.add_noise(clean[repeated], noise, timesteps)
    predicted = model.to_noise(model(noisy, timesteps, condition[repeated]), noisy, timesteps)
    return ((predicted - noise).square() * weight[repeated]).sum((1, 2, 3)).view(-1, noises).mean(1)


@dataclass(frozen=True)
class Triggered:
    """Gives each caption its trigger, then applies a mitigation or none.

    A mitigation that rewrites captions cannot act on an embedding: what it wrote is replaced by the trigger.

    Args:
        mitigation: what is attacked.
        budget: of the attack, for the settings of a collection.
        triggers: {caption: embedding [L, D]}; other captions are not changed.
    """

    mitigation: Mitigation | None
    budget: AttackBudget
    triggers: Mapping[str, Tensor] = field(repr=False)

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        triggered = self._with_triggers(setup, setup.captions)
        if self.mitigation is None:
            return triggered
        changed = self.mitigation(model, triggered)
        return changed if changed.captions == setup.captions else self._with_triggers(changed, setup.captions)

    def _with_triggers(self, setup: SamplingSetup, captions: Sequence[str]) -> SamplingSetup:
        assert setup.condition is not None
        states = setup.condition.encoder_hidden_states.clone()
        for row, caption in enumerate(captions, len(captions)):  # of the conditional half
            if caption in self.triggers:
                states[row] = self.triggers[caption].to(states)
        return replace(setup, condition=replace(setup.condition, encoder_hidden_states=states))
