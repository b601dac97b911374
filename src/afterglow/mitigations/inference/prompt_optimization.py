"""Optimization of a caption's embedding (Wen et al. 2024; with LD, Chen et al. 2025; docs/methods.md#mitigations-inference)."""

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from afterglow.attention_names import first_block
from afterglow.functional.attention import mean_of_grids
from afterglow.functional.pixels import resize
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.attention import cross_attention_layers, record_attention
from afterglow.sampling.guidance import delta_norm, guidance_delta, predict_both
from afterglow.sampling.loop import initial_input, sample_steps
from afterglow.sampling.setup import SamplingSetup

log = logging.getLogger(__name__)
Loss = Callable[[Tensor], Tensor]  # embeddings [B, L, D] => [B]


@dataclass(frozen=True)
class PromptOptimization:
    """Optimizes all token embeddings but the begin token's with AdamW, for each image until the loss at the first step is low.

    The loss is ||Delta||_2 of one image. (The authors' code has one norm over a batch, sqrt(N) times as large.)

    Args:
        target: loss at which the optimization ends.
        trigger: captions whose loss is at most this are not changed.
        local: use LD = ||Delta m||_2 / mean(m), where m is the Bright-Ending map of the last step of a preliminary pass.
        learning_rate: learning rate of AdamW; .05 in the authors' command, .1 in their function.
        max_steps: largest number of optimizer steps.
    """

    target: float
    trigger: float = 0.0
    local: bool = False
    learning_rate: float = 0.05
    max_steps: int = 10

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        mask = bright_ending_map(model, setup) if self.local else None
        (noisy, timestep), both = initial_input(model, setup), setup.condition
        empty, own = both.encoder_hidden_states.chunk(2)

        def loss(embeddings: Tensor) -> Tensor:
            condition = replace(both, encoder_hidden_states=torch.cat([empty, embeddings]))
            outputs = predict_both(model, condition, noisy, timestep)
            return masked_delta_norm(guidance_delta(model, *outputs, noisy, timestep.item()), mask)

        result = optimize_embedding(loss, own, self)
        for row in result.diverged.nonzero()[:, 0].tolist():
            log.warning("The optimization of '%s' (seed %d) diverged; its embedding is kept.", setup.captions[row], setup.seeds[row])
        extras = {
            "mitigation.loss_before": result.before.cpu(),
            "mitigation.loss_after": result.after.cpu(),
            "mitigation.diverged": result.diverged.cpu(),
        }
        condition = replace(both, encoder_hidden_states=torch.cat([empty, result.embeddings]))
        return replace(setup, condition=condition, extras={**setup.extras, **extras})


@dataclass(frozen=True)
class OptimizationResult:
    """Result of an optimization of B embeddings."""

    embeddings: Tensor  # [B, L, D]
    before: Tensor  # loss of each image before, [B]
    after: Tensor  # loss of each image after, [B]
    diverged: Tensor  # 1 if the loss rose or was not finite, so that the embedding is unchanged, [B]


@torch.enable_grad()
def optimize_embedding(loss: Loss, embeddings: Tensor, options: PromptOptimization) -> OptimizationResult:
    """Minimize the loss of each row independently; neither gradient nor weight decay reaches the begin token.

    Args:
        loss: embeddings [B, L, D] to losses [B].
        embeddings: [B, L, D].
        options: target, trigger, learning rate and number of steps.
    """
    begin, rest = embeddings[:, :1].detach(), embeddings[:, 1:].detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([rest], lr=options.learning_rate)
    before = after = torch.full((len(embeddings),), math.nan, device=embeddings.device)
    failed, active = torch.zeros(len(embeddings), dtype=torch.bool, device=embeddings.device), None
    for step in range(options.max_steps + 1):
        now = loss(torch.cat([begin, rest], dim=1))
        if active is None:
            before, active = now.detach(), now.detach() > options.trigger
            failed = ~before.isfinite()
        after = torch.where(active | (step == 0), now.detach(), after)
        failed = failed | (active & ~after.isfinite())
        active = active & ~failed & (after > options.target)
        if step == options.max_steps or not active.any():
            break
        # divided by the first loss: AdamW is invariant to scale except for its epsilon
        (gradient,) = torch.autograd.grad((now / before.clamp(min=1e-30))[active].sum(), rest)
        finite = gradient.flatten(1).isfinite().all(1)
        failed, active = failed | (active & ~finite), active & finite
        previous = rest.detach().clone()
        rest.grad = torch.where(active[:, None, None], gradient, 0.0)
        optimizer.step()
        with torch.no_grad():
            rest.copy_(torch.where(active[:, None, None], rest, previous))
    diverged = failed | (after > before)
    new = torch.cat([begin, rest.detach()], dim=1)
    return OptimizationResult(
        torch.where(diverged[:, None, None], embeddings, new),
        _finite(before),
        _finite(torch.where(diverged, before, after)),
        diverged.float(),
    )


def _finite(values: Tensor) -> Tensor:
    """Finite values for a table; `diverged` marks those that were not."""
    return values.float().nan_to_num(nan=0.0, posinf=torch.finfo(torch.float32).max)


def masked_delta_norm(delta: Tensor, mask: Tensor | None) -> Tensor:
    """||Delta||_2, or with a soft mask [B, h, w] ||Delta m||_2 / mean(m), [B] (docs/methods.md#local-detection)."""
    if mask is None:
        return delta_norm(delta)
    weight = resize(mask.float(), delta.shape[-2:])
    return delta_norm(delta * weight[:, None]) / weight.flatten(1).mean(1)


@torch.no_grad()
def bright_ending_map(model: Denoiser, setup: SamplingSetup) -> Tensor:
    """Attention to the first end token at the last step, mean over heads and the layers of the first block, [B, h, w].

    docs/methods.md#bright-ending
    """
    assert setup.condition is not None
    ((outputs, _),) = deque(sample_steps(model, setup), maxlen=1)
    ends = setup.condition.prompt_length[setup.cond_slice] - 1
    to_end = lambda attention_BPL: attention_BPL[torch.arange(len(ends)), :, ends]  # noqa: E731
    prefix = first_block(cross_attention_layers(model.unet))
    with record_attention(model.unet, to_end, prefixes=(prefix,), rows=setup.cond_slice) as maps:
        predict_both(model, setup.condition, outputs.noisy, torch.tensor(outputs.timestep))
    height, width = outputs.noisy.shape[-2:]
    return mean_of_grids(list(maps.values()), height / width)
