"""Samples that look memorized do not count in the loss, by ||Delta|| (Wen et al. 2024) or by attention entropy (Ren et al. 2024)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from afterglow.functional.attention import entropy
from afterglow.mitigations.inference.passes import guidance_delta, magnitude
from afterglow.models.denoiser import Denoiser
from afterglow.models.training_mitigation import TrainingMitigation, TrainStepOutput
from afterglow.sampling.attention import record_attention

MEASURES = ("guidance_norm", "entropy")
NUM_LEVELS = 10  # equal parts of the noise schedule: what is large depends on the noise level
NUM_REMEMBERED = 2048  # last values of controls, over all levels
ENOUGH = 100  # values of a level, before which nothing is dropped there


class SampleDropping(TrainingMitigation):
    """Drops samples with a caption whose measure at their own noise level is over a threshold.

    by: magnitude, ||eps_c - eps_u||_2, one more call of the network without gradients; or entropy, of the attention to each token
    averaged over pixels, heads and layers, read while the network runs. threshold: in units of the measure; None: this percentile of
    the last controls in the same tenth of the noise schedule, because norms grow with the number of values and entropies with that of
    tokens. remembered: (level, value) of the last controls, [N, 2].
    """

    def __init__(self, by: str, threshold: float | None = None, percentile: float = 99.0) -> None:
        if by not in MEASURES:
            raise ValueError(f"Samples are dropped by one of {', '.join(MEASURES)}, and not by '{by}'.")
        if not 0 < percentile <= 100:
            raise ValueError(f"The percentile of the controls over which a sample is dropped lies in (0, 100], and it is {percentile:g}.")
        self.by, self.threshold, self.percentile = by, threshold, percentile
        self.remembered = torch.empty(0, 2, dtype=torch.float64)
        self._seen: list[Tensor] = []  # rows (number of the sample, level, value) of controls since the last optimizer step
        self._attention: dict[str, Tensor] = {}

    @contextmanager
    def watch(self, model: Denoiser) -> Iterator[None]:
        if self.by == "guidance_norm":
            yield
            return
        with record_attention(model.unet, lambda attention_BPL: attention_BPL.mean(1)) as self._attention:
            yield

    @torch.no_grad()
    def kept(self, model: Denoiser, lesson: TrainStepOutput) -> Tensor:
        values = own_magnitude(model, lesson) if self.by == "guidance_norm" else entropy(torch.stack([*self._attention.values()]).mean(0))
        told = torch.tensor([bool(caption) for caption in lesson.captions], device=values.device)
        if self.threshold is not None:
            return ~told | (values <= self.threshold)
        levels = lesson.timesteps * NUM_LEVELS // len(model.scheduler)
        limits = self.limits()[levels.cpu()]
        controls = torch.tensor([kind == "control" for kind in lesson.batch.kind], device=values.device) & told
        rows = torch.stack([lesson.batch.index.to(values.device), levels, values, controls], dim=1).double()
        gathered: Any = model.all_gather(rows)  # all processes remember the same
        whole = gathered.reshape(-1, rows.shape[1]).cpu()
        self._seen.append(whole[whole[:, 3] > 0, :3])
        return ~told | (values <= limits.to(values))

    def limits(self) -> Tensor:
        """The threshold of each level, [NUM_LEVELS]; infinite where too few controls are remembered."""
        found = torch.full((NUM_LEVELS,), torch.inf, dtype=torch.float64)
        for level in range(NUM_LEVELS):
            values = self.remembered[self.remembered[:, 0] == level, 1]
            if len(values) >= ENOUGH:
                found[level] = values.quantile(self.percentile / 100)
        return found

    def settle(self) -> None:
        """Remember what was seen, in the order of the samples; once an optimizer step, however it was split over processes and batches."""
        if self._seen:
            rows = torch.cat(self._seen)
            self.remembered = torch.cat([self.remembered, rows[rows[:, 0].argsort(), 1:]])[-NUM_REMEMBERED:]
            self._seen = []


@torch.no_grad()
def own_magnitude(model: Denoiser, lesson: TrainStepOutput) -> Tensor:
    """||eps_c - eps_u||_2 of each sample at its own noise level, [B]; a sample without a caption has about 0."""
    empty = model.condition([""])
    assert empty is not None
    uncond = model(lesson.noisy, lesson.timesteps, empty[[0] * len(lesson.noisy)])
    return magnitude(guidance_delta(model, uncond, lesson.output, lesson.timesteps))
