"""Recording of a sampling pass, step by step."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afterglow.attention_names import ATTENTION_COLUMNS, END_TOKEN_RULES
from afterglow.errors import AfterglowError
from afterglow.functional.attention import mean_of_grids, token_groups
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.attention import record_attention, record_self_attention
from afterglow.sampling.guidance import guidance_delta, predict_both
from afterglow.sampling.observers import EXTRAS, Curvature, EarlyDifference, LowNoiseCosine, Observer, SamplerStep, Sharpness, concentration
from afterglow.sampling.setup import SamplingSetup


@dataclass(frozen=True)
class CaptureConfig:
    """What is kept of a sampling pass beside the images.

    Args:
        guidance: keep Delta_t at every step.
        tokens: keep token attention at every step.
        end_steps: step indices (negative from the end) at which the attention to end tokens and token groups is kept.
        end_layers: prefixes of the layers whose end-token attention is kept; default: all.
        end_token: end token that weights LD: first_eos, last or eos_and_pads (the attention to all three is kept).
        extras: what few measures read: sharpness, curvature, low_noise_cosine, basin_curve, early_difference and self_attention, each
            with calls of the network of its own, and update_norms.
        curvature_vectors: K, number of vectors of Hutchinson's estimate.
    """

    guidance: bool = True
    tokens: bool = True
    end_steps: Sequence[int] = (0, -1)
    end_layers: Sequence[str] = ("",)
    end_token: str = "first_eos"
    extras: Sequence[str] = ()
    curvature_vectors: int = 16

    @property
    def needs_both(self) -> bool:
        """Whether something that is kept compares the predictions with and without a caption."""
        return self.guidance or bool(self.extras)

    def __post_init__(self) -> None:
        if self.end_token not in END_TOKEN_RULES:
            raise AfterglowError(f"end_token must be one of {', '.join(END_TOKEN_RULES)}, not '{self.end_token}'.")
        if unknown := [name for name in self.extras if name not in EXTRAS]:
            raise AfterglowError(f"extras must be among {', '.join(EXTRAS)}, not '{unknown[0]}'.")


def capture_for(requires: Collection[str], **options: Any) -> CaptureConfig:
    """The capture that measures require, and no more.

    Args:
        requires: requirements as a Measure names them: guidance, token_attention, end_attention.STEP, extras.NAME.
        options: other arguments of CaptureConfig.
    """
    steps = [name.partition(".")[2] for name in requires if name.startswith("end_attention.")]
    extras = {name.split(".")[1] for name in requires if name.startswith("extras.")}
    return CaptureConfig(
        guidance="guidance" in requires,
        tokens="token_attention" in requires,
        end_steps=sorted({"first": 0, "last": -1}[step] if step in ("first", "last") else int(step.removeprefix("step")) for step in steps),
        extras=[name for name in EXTRAS if name in extras],
        **options,
    )


class TraceRecorder:
    """Runs the network at each step of one pass, all halves in one batch, and keeps what `capture` requests.

    Args:
        model: the model.
        capture: what is kept.
        condition: encoded captions [uncond; cond] of 2B rows, or B rows of the conditional half alone if `capture` needs no other; None for
            a model without text.
        num_steps: number of steps of the pass.
        seeds: B seeds.
        early: an earlier state of the model, for early_difference.
    """

    def __init__(
        self,
        model: Denoiser,
        capture: CaptureConfig,
        condition: TextConditioning | None,
        num_steps: int,
        seeds: Sequence[int],
        early: Denoiser | None = None,
    ) -> None:
        self.model, self.capture, self.condition, self.num_steps = model, capture, condition, num_steps
        self.end_steps = {index % num_steps for index in capture.end_steps}
        self.guidance: list[Tensor] = []
        self.guidance_rms: list[Tensor] = []
        self.token_attention: list[Tensor] = []
        self.end_attention: dict[tuple[int, str], Tensor] = {}
        self.extras: dict[str, Tensor] = {}
        self.cond_slice = slice(None)
        if condition is not None:
            self.cond_slice = slice(len(condition.prompt_length) - len(seeds), None)
            self.end_weights = _column_weights(condition[self.cond_slice])
        self.observers: list[Observer] = []
        if "sharpness" in capture.extras:
            self.observers.append(Sharpness(model))
        if "curvature" in capture.extras:
            self.observers.append(Curvature(model, capture.curvature_vectors, list(seeds)))
        if "low_noise_cosine" in capture.extras:
            self.observers.append(LowNoiseCosine(model))
        if "early_difference" in capture.extras and early is not None:
            self.observers.append(EarlyDifference(early))

    def predict(self, index: int, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network at step `index` on x_t [B, C, h, w] and record it; the unconditional and the conditional output."""
        with self._record_self_attention(index, noisy), self._record_attention(index):
            uncond, cond = predict_both(self.model, self.condition, noisy, timestep)
        if self.condition is not None and self.capture.guidance:
            self._keep_guidance(guidance_delta(self.model, uncond, cond, noisy, timestep.item()))
        if self.observers:
            noise = self.model.to_noise(cond, noisy, timestep.item())
            step = SamplerStep(index, self.num_steps, timestep.item(), noisy, noise, self.condition)
            for observer in self.observers:
                observer.on_step(step)
        return uncond, cond

    @contextmanager
    def _record_self_attention(self, index: int, noisy: Tensor) -> Iterator[None]:
        if "self_attention" not in self.capture.extras or index != self.num_steps - 1:
            yield
            return
        with record_self_attention(self.model.unet, concentration, rows=self.cond_slice) as maps:
            yield
        grids = [grid for grid in maps.values() if grid.shape[1] > 1]  # undefined where one position attends to itself
        if not grids:
            raise AfterglowError(f"There is no self-attention to record: all layers of {type(self.model.unet).__name__} have one position.")
        self.extras["self_attention"] = _sent(mean_of_grids(grids, noisy.shape[-2] / noisy.shape[-1]))

    @contextmanager
    def _record_attention(self, index: int) -> Iterator[None]:
        ends, tokens = index in self.end_steps, self.capture.tokens
        if self.condition is None or not (ends or tokens):
            yield
            return

        def reduce(attention_BPL: Tensor) -> tuple[Tensor, Tensor | None]:
            return attention_BPL.mean(1), attention_BPL @ self.end_weights if ends else None

        prefixes = ("",) if tokens else tuple(self.capture.end_layers)
        with record_attention(self.model.unet, reduce, prefixes=prefixes, rows=self.cond_slice) as maps:
            yield
        if tokens:
            self.token_attention.append(_sent(torch.stack([token for token, _ in maps.values()], dim=1).half()))
        for layer, (_, end) in maps.items():
            if end is not None and layer.startswith(tuple(self.capture.end_layers)):
                self.end_attention[index, layer] = _sent(end.half())

    def _keep_guidance(self, delta: Tensor) -> None:
        rms = delta.square().flatten(1).mean(1).sqrt()
        self.guidance.append(_sent((delta / rms.clamp(min=1e-12)[:, None, None, None]).half()))
        self.guidance_rms.append(_sent(rms))

    def result(self) -> dict[str, Any]:
        """The recorded fields of Generations; waits for the device."""
        if self.model.device.type == "cuda":
            torch.cuda.current_stream(self.model.device).synchronize()
        steps = {name: getattr(self, name) for name in ("guidance", "guidance_rms", "token_attention")}
        return {
            **{name: torch.stack(values) if values else None for name, values in steps.items()},
            "end_attention": self.end_attention or None,
            "extras": self.extras | {name: value for observer in self.observers for name, value in observer.result().items()},
        }


def _sent(tensor: Tensor) -> Tensor:
    """A copy in the memory of the host, which can be read once the device has been waited for."""
    return tensor.to("cpu", non_blocking=True)


def _column_weights(condition: TextConditioning) -> Tensor:
    """[B, L, 6]: what ATTENTION_COLUMNS sum; the last position; the mean over the first end token and all pads."""
    groups = {name: group.float() for name, group in token_groups(condition.prompt_length, condition.attention_mask.shape[1]).items()}
    tail, last = groups["end_and_pads"], torch.zeros_like(groups["bos"])
    last[:, -1] = 1
    rules = {"first_eos": groups["first_end"], "last": last, "eos_and_pads": tail / tail.sum(1, keepdim=True)}
    return torch.stack([(rules | groups)[name] for name in ATTENTION_COLUMNS], dim=-1)


def sink_group(model: Denoiser, setup: SamplingSetup) -> str | None:
    """The token group without caption, whose dark attention map is sink darkness (docs/methods.md#token-groups); None without text.

    BOS if its state is the same for two captions (a causal encoder) or if padding is masked, otherwise the padding. The captions are the
    empty one and the first other one of a setup that no mitigation has changed, which are encoded already. Pipelines with a pooled state
    may replace the empty caption by zeros, so that it is not compared there.
    """
    condition, rows = setup.condition, [row for row, caption in enumerate(setup.captions, len(setup.captions)) if caption]
    if condition is not None and (not rows or condition.pooled is not None):
        condition, rows = model.condition(["a", "b"]), [1]
    if condition is None:
        return None
    first = condition.encoder_hidden_states[:, 0].float()
    return "bos" if torch.allclose(first[0], first[rows[0]], atol=1e-3) or not condition.attention_mask.all() else "pads"
