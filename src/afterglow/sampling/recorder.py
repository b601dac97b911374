"""What is kept of a pass over the sampler, step by step."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from afterglow.generations import END_TOKEN_RULES
from afterglow.models.denoiser import Denoiser, TextConditioning
from afterglow.sampling.attention import record_attention
from afterglow.sampling.observers import DERIVED, Curvature, EarlyDifference, Observer, Sharpness, Step, concentration
from afterglow.sampling.setup import CFGOutputs, classifier_free_guidance


@dataclass(frozen=True)
class CaptureConfig:
    """What is kept of a pass beside the images.

    Args:
        guidance: Delta_t at every step.
        tokens: token attention at every step.
        end_steps: step indices (negative from the end) at which end-token attention is kept.
        end_layers: beginnings of the names of the layers whose end-token attention is kept; all by default.
        end_token: the rule by which LD weights: first_eos, last, eos_and_pads (all three are kept).
        derived: what costs calls of its own: sharpness, curvature, basin_curve, early_difference, self_attention.
        curvature_vectors: K of Hutchinson's estimate.
    """

    guidance: bool = True
    tokens: bool = True
    end_steps: Sequence[int] = (0, -1)
    end_layers: Sequence[str] = ("",)
    end_token: str = "first_eos"
    extras: Sequence[str] = ()
    curvature_vectors: int = 16

    def __post_init__(self) -> None:
        if self.end_token not in END_TOKEN_RULES:
            raise ValueError(f"The end token is one of {', '.join(END_TOKEN_RULES)}, and not '{self.end_token}'.")
        for name in self.extras:
            if name not in DERIVED:
                raise ValueError(f"derived names {', '.join(DERIVED)}, and not '{name}'.")


def capture_for(requires: Collection[str], **options: Any) -> CaptureConfig:
    """What measures with these needs read, and no more. needs: as Measure names them; options: other arguments of Capture."""
    steps = [need.partition(".")[2] for need in requires if need.startswith("end_attention.")]
    wanted = {need.partition(".")[2].partition(".")[0] for need in requires if need.startswith("extras.")}
    return CaptureConfig(
        guidance="guidance" in requires,
        tokens="token_attention" in requires,
        end_steps=sorted({"first": 0, "last": -1}[step] if step in ("first", "last") else int(step.removeprefix("step")) for step in steps),
        extras=[name for name in DERIVED if name in wanted],
        **options,
    )


def observers_of(model: Denoiser, capture: CaptureConfig, seeds: Sequence[int], early: Denoiser | None) -> list[Observer]:
    """What looks on beside the tape, for one batch."""
    found: list[Observer] = []
    if "sharpness" in capture.extras:
        found.append(Sharpness(model))
    if "curvature" in capture.extras:
        found.append(Curvature(model, capture.curvature_vectors, list(seeds)))
    if "early_difference" in capture.extras:
        assert early is not None
        found.append(EarlyDifference(early))
    return found


class TraceRecorder:
    """Runs the network at each step of one pass, both halves in one batch, and keeps what was asked for."""

    def __init__(
        self,
        model: Denoiser,
        capture: CaptureConfig,
        condition: TextConditioning | None,
        num_steps: int,
        observers: Sequence[Observer] = (),
        guide: Callable[[CFGOutputs], Tensor] = classifier_free_guidance,
    ) -> None:
        self.model, self.capture, self.condition, self.num_steps, self.observers = model, capture, condition, num_steps, observers
        self.guide = guide
        self.end_steps = {index % num_steps for index in capture.end_steps}
        self.guidance: list[Tensor] = []
        self.scales: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.ends: dict[tuple[int, str], Tensor] = {}
        self.extras: dict[str, Tensor] = {}
        self.half = slice(None)
        if condition is not None:
            self.half = slice(len(condition.states) // 2, None)
            self.end_weights = _end_token_weights(condition[self.half])

    def predict(self, index: int, noisy: Tensor, timestep: Tensor, scale: float) -> Tensor:
        """The network's output that moves the sampler at this step."""
        with self._self_attention(index, noisy):
            cond, uncond = self._halves(index, noisy, timestep)
        if self.observers:
            noise = self.model.to_noise(cond, noisy, int(timestep))
            step = Step(index, self.num_steps, int(timestep), noisy, noise, self.condition)
            for observer in self.observers:
                observer.see(step)
        return cond if uncond is None else self.guide(CFGOutputs(index, int(timestep), noisy, uncond, cond, scale))

    def _halves(self, index: int, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor | None]:
        """The conditional and the unconditional output; the latter None without text."""
        times = timestep.to(noisy.device).expand(len(noisy))
        if self.condition is None:
            return self.model(noisy, times, None), None
        with self._recorder(index) as maps:
            output = self.model(torch.cat([noisy, noisy]), torch.cat([times, times]), self.condition)
        uncond, cond = output.chunk(2)
        if self.capture.guidance:
            self._keep_guidance(cond, uncond, noisy, int(timestep))
        self._keep_attention(index, maps or {})
        return cond, uncond

    @contextmanager
    def _self_attention(self, index: int, noisy: Tensor) -> Iterator[None]:
        """Keep the concentration of self-attention at the last step, where it was asked for."""
        if "self_attention" not in self.capture.extras or index != self.num_steps - 1:
            yield
            return
        with record_attention(self.model.unet, concentration, rows=self.half, to_pixels=True) as maps:
            yield
        height, width = noisy.shape[-2:]
        sides = {name: math.isqrt(grid.shape[1] * height // width) for name, grid in maps.items()}
        grids = [grid.unflatten(1, (sides[name], -1))[:, None] for name, grid in maps.items()]
        finest = max((grid.shape[-2:] for grid in grids), key=lambda size: size[0])
        resized = [interpolate(grid, size=finest, mode="bilinear", align_corners=False)[:, 0] for grid in grids]
        self.extras["self_attention"] = torch.stack(resized).mean(0).cpu()

    def _recorder(self, index: int) -> Any:
        ends = index in self.end_steps
        if not (ends or self.capture.tokens):
            return nullcontext()

        def reduce(attention_BPL: Tensor) -> tuple[Tensor, Tensor | None]:
            tokens = attention_BPL.mean(1)
            return tokens, attention_BPL @ self.end_weights if ends else None

        wanted = ("",) if self.capture.tokens else tuple(self.capture.end_layers)
        return record_attention(self.model.unet, reduce, layers=lambda name: name.startswith(wanted), rows=self.half)

    def _keep_guidance(self, cond: Tensor, uncond: Tensor, noisy: Tensor, timestep: int) -> None:
        delta = (self.model.to_noise(cond, noisy, timestep) - self.model.to_noise(uncond, noisy, timestep)).float()
        rms = delta.square().flatten(1).mean(1).sqrt()
        self.guidance.append((delta / rms.clamp(min=1e-12)[:, None, None, None]).half().cpu())
        self.scales.append(rms.cpu())

    def _keep_attention(self, index: int, maps: Mapping[str, Any]) -> None:
        if self.capture.tokens and maps:
            self.tokens.append(torch.stack([tokens for tokens, _ in maps.values()], dim=1).half().cpu())
        for layer, (_, ends) in maps.items():
            if ends is not None and layer.startswith(tuple(self.capture.end_layers)):
                self.ends[index, layer] = ends.half().cpu()

    def kept(self) -> dict[str, Any]:
        return {
            "guidance": torch.stack(self.guidance) if self.guidance else None,
            "guidance_rms": torch.stack(self.scales) if self.scales else None,
            "token_attention": torch.stack(self.tokens) if self.tokens else None,
            "end_attention": self.ends or None,
            "extras": self.extras | {name: value for observer in self.observers for name, value in observer.kept().items()},
        }


def _end_token_weights(condition: TextConditioning) -> Tensor:
    """[B, L, rules]: the first end token, the last position, the mean over the first end token and all pads."""
    num, length = condition.mask.shape
    positions = torch.arange(length, device=condition.states.device)
    end = (condition.prompt_length - 1)[:, None]
    tail = (positions >= end).float()
    columns = [(positions == end).float(), (positions == length - 1).float().expand(num, -1), tail / tail.sum(1, keepdim=True)]
    return torch.stack(columns, dim=-1)
