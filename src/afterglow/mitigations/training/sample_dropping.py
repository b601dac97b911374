"""Samples that look memorized do not count in the loss (docs/methods.md#mitigations-training)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.functional.attention import entropy
from afterglow.models.denoiser import Denoiser, TrainingMitigation, TrainStepOutput
from afterglow.sampling.attention import record_attention
from afterglow.sampling.guidance import delta_norm, guidance_delta

NUM_LEVELS = 10  # equal parts of the noise schedule, since values depend on the noise level
MAX_HISTORY = 2048  # last values of controls, over all levels
MIN_HISTORY = 100  # values of a level before which nothing is dropped there


class SampleDropping(TrainingMitigation):
    """Drops captioned samples whose value at their own noise level is above a threshold (Wen et al. 2024; Ren et al. 2024).

    Args:
        measure: guidance_norm, ||eps_c - eps_u||_2, one more call of the network without gradients; or entropy of the attention to
            each token averaged over pixels, heads and layers, read while the network runs.
        threshold: samples above this value are dropped, in units of the measure; null: the percentile.
        percentile: threshold as a percentile of the last values of controls in the same tenth of the noise schedule.
    """

    def __init__(self, measure: Literal["guidance_norm", "entropy"], threshold: float | None = None, percentile: float = 99.0) -> None:
        if not 0 < percentile <= 100:
            raise AfterglowError(f"SampleDropping: percentile must lie in (0, 100], not {percentile:g}.")
        self.measure, self.threshold, self.percentile = measure, threshold, percentile
        self.history = torch.empty(0, 2, dtype=torch.float64)  # (level, value) of the last controls
        self._pending: list[Tensor] = []  # (index, level, value, is control) of samples since the last optimizer step
        self._attention: dict[str, Tensor] = {}

    @contextmanager
    def hooks(self, model: Denoiser) -> Iterator[None]:
        if self.measure == "guidance_norm":
            yield
            return
        with record_attention(model.unet, lambda attention_BPL: attention_BPL.mean(1)) as self._attention:
            yield

    @torch.no_grad()
    def loss_mask(self, model: Denoiser, step: TrainStepOutput) -> Tensor:
        values = self._values(model, step)
        has_caption = torch.tensor([bool(caption) for caption in step.captions], device=values.device)
        if self.threshold is not None:
            return ~has_caption | (values <= self.threshold)
        levels = (step.timesteps * NUM_LEVELS // len(model.scheduler)).long().clamp(max=NUM_LEVELS - 1)
        thresholds = self.thresholds()[levels.cpu()]
        controls = torch.tensor([kind == "control" for kind in step.batch.kind], device=values.device) & has_caption
        self._pending.append(torch.stack([step.batch.index.to(values.device), levels, values, controls], dim=1).double())
        return ~has_caption | (values <= thresholds.to(values))

    def _values(self, model: Denoiser, step: TrainStepOutput) -> Tensor:
        if self.measure == "guidance_norm":
            return training_guidance_norm(model, step)
        return entropy(torch.stack([*self._attention.values()]).mean(0))

    def thresholds(self) -> Tensor:
        """The threshold of each level, [NUM_LEVELS]; infinite if its history is too short."""
        result = torch.full((NUM_LEVELS,), torch.inf, dtype=torch.float64)
        for level in range(NUM_LEVELS):
            values = self.history[self.history[:, 0] == level, 1]
            if len(values) >= MIN_HISTORY:
                result[level] = values.quantile(self.percentile / 100)
        return result

    def on_optimizer_step(self, gather: Callable[[Tensor], Any]) -> None:
        """Add the controls of this step to the history, in the order of the samples and independent of processes and batches."""
        if self._pending:
            rows = gather(torch.cat(self._pending)).reshape(-1, 4).cpu()
            rows = rows[rows[:, 3] > 0]
            self.history = torch.cat([self.history, rows[rows[:, 0].argsort(), 1:3]])[-MAX_HISTORY:]
            self._pending = []

    def state_dict(self) -> dict[str, Any]:
        return {"measure": self.measure, "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["measure"] == self.measure:  # values of two measures do not mix
            self.history = state["history"]


@torch.no_grad()
def training_guidance_norm(model: Denoiser, step: TrainStepOutput) -> Tensor:
    """||eps_c - eps_u||_2 of each training sample at its own noise level, [B]; about 0 for a sample without a caption."""
    empty = model.condition([""])
    assert empty is not None
    uncond = model(step.noisy, step.timesteps, empty[[0] * len(step.noisy)])
    return delta_norm(guidance_delta(model, uncond, step.output, step.noisy, step.timesteps))
