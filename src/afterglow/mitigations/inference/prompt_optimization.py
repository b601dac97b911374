"""A caption's embedding, changed until it says less at the first step (Wen et al. 2024; with LD, Chen et al. 2025; METHODS (c), (a))."""

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from afterglow.functional.pixels import resize
from afterglow.measures.bright_ending import BRIGHT_ENDING_LAYERS
from afterglow.mitigations.inference.passes import first_step, guidance_delta, halves_at, magnitude, sample_steps
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.attention import record_attention
from afterglow.sampling.setup import SamplingSetup

log = logging.getLogger(__name__)
Loss = Callable[[Tensor], Tensor]  # text states [B, L, D] => [B]


@dataclass(frozen=True)
class PromptOptimization:
    """AdamW on all text states but the begin token's, until the loss at the first step is at most `target`; each image by itself.

    The loss is ||Delta||_2 of one image, or with `local` LD = ||Delta m||_2 / mean(m), m the Bright-Ending map of the last step of a
    first pass from the same noise. (The authors' code has one norm over a batch, sqrt(N) times as large.) trigger: captions whose
    loss is at most this are left alone. learning_rate: .05 is the authors' command, .1 their function.
    """

    target: float
    trigger: float = 0.0
    local: bool = False
    learning_rate: float = 0.05
    max_steps: int = 10

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        mask = bright_ending_map(model, setup) if self.local else None
        first, both = first_step(model, setup), setup.condition

        def loss(states: Tensor) -> Tensor:
            condition = replace(both, states=torch.cat([both.states[: len(states)], states]))
            outputs = halves_at(model, condition, first.noisy, first.timestep)
            return masked_magnitude(guidance_delta(model, *outputs, int(first.timestep)), mask)

        found = optimize_embedding(loss, both.states[setup.half], self)
        self._tell(setup, found)
        condition = replace(both, states=torch.cat([both.states[: len(setup.seeds)], found.states]))
        notes = {
            "mitigation.loss_before": found.before.cpu(),
            "mitigation.loss_after": found.after.cpu(),
            "mitigation.diverged": found.diverged.cpu(),
        }
        return replace(setup, condition=condition, notes={**setup.notes, **notes})

    def _tell(self, setup: SamplingSetup, found: "OptimizationResult") -> None:
        for row in found.diverged.nonzero()[:, 0].tolist():
            log.warning("The optimization of '%s' (seed %d) diverged: it keeps its embedding.", setup.captions[row], setup.seeds[row])


@dataclass(frozen=True)
class OptimizationResult:
    """states: [B, L, D]; before, after: each image's loss, [B]; diverged: 1 where it rose or was not finite, and nothing changed, [B]."""

    states: Tensor
    before: Tensor
    after: Tensor
    diverged: Tensor


@torch.enable_grad()
def optimize_embedding(loss: Loss, states: Tensor, how: PromptOptimization) -> OptimizationResult:
    """Minimize each row's loss by itself. The begin token is no parameter, so that neither gradient nor weight decay reaches it."""
    begin, rest = states[:, :1].detach(), states[:, 1:].detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([rest], lr=how.learning_rate)
    before = after = torch.full((len(states),), math.nan, device=states.device)
    broken, busy = torch.zeros(len(states), dtype=torch.bool, device=states.device), None
    for turn in range(how.max_steps + 1):
        now = loss(torch.cat([begin, rest], dim=1))
        if busy is None:
            before, busy = now.detach(), now.detach() > how.trigger
            broken = ~before.isfinite()
        after = torch.where(busy | (turn == 0), now.detach(), after)
        broken = broken | (busy & ~after.isfinite())
        busy = busy & ~broken & (after > how.target)
        if turn == how.max_steps or not busy.any():
            break
        # in units of the first loss: AdamW does not see a scale, but its epsilon does
        (gradient,) = torch.autograd.grad((now / before.clamp(min=1e-30))[busy].sum(), rest)
        sound = gradient.flatten(1).isfinite().all(1)
        broken, busy = broken | (busy & ~sound), busy & sound
        kept = rest.detach().clone()
        rest.grad = torch.where(busy[:, None, None], gradient, 0.0)
        optimizer.step()
        with torch.no_grad():
            rest.copy_(torch.where(busy[:, None, None], rest, kept))
    diverged = broken | (after > before)
    new = torch.cat([begin, rest.detach()], dim=1)
    return OptimizationResult(
        torch.where(diverged[:, None, None], states, new), _finite(before), _finite(torch.where(diverged, before, after)), diverged.float()
    )


def _finite(values: Tensor) -> Tensor:
    """For a table: 'diverged' tells of what is not finite."""
    return values.float().nan_to_num(nan=0.0, posinf=torch.finfo(torch.float32).max)


def masked_magnitude(delta: Tensor, mask: Tensor | None) -> Tensor:
    """||Delta||_2, or ||Delta m||_2 / mean(m); delta: [B, C, h, w], mask: soft [B, h, w]. Returns [B]."""
    if mask is None:
        return magnitude(delta)
    weight = resize(mask.float(), delta.shape[-2:])
    return magnitude(delta * weight[:, None]) / weight.flatten(1).mean(1)


@torch.no_grad()
def bright_ending_map(model: Denoiser, setup: SamplingSetup) -> Tensor:
    """Attention to the first end token at the last step of a pass, mean over heads and the authors' two layers, [B, h, w]."""
    assert setup.condition is not None
    ((halves, _),) = deque(sample_steps(model, setup), maxlen=1)
    ends = setup.condition.prompt_length[setup.half] - 1
    with record_attention(
        model.unet,
        lambda attention_BPL: attention_BPL[torch.arange(len(ends)), :, ends],
        layers=lambda name: name.startswith(BRIGHT_ENDING_LAYERS),
        rows=setup.half,
    ) as maps:
        halves_at(model, setup.condition, halves.noisy, torch.tensor(halves.timestep))
    height, width = halves.noisy.shape[-2:]
    grids = [grid.unflatten(1, (math.isqrt(grid.shape[1] * height // width), -1)) for grid in maps.values()]
    return torch.stack(grids).mean(0)
