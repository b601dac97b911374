"""Cost of a mitigation: seconds, evaluations of the network and floating-point operations per image."""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from afterglow.files import read_json
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import sample_steps
from afterglow.sampling.setup import Mitigation, SamplingSetup


@dataclass(frozen=True)
class CostTracker:
    """Applies a mitigation, or none, and measures the cost of its passes.

    Adds to the setup's extras cost.seconds, from the embeddings to the last step, and cost.evaluations of the network, both per image:
    a plain pass has two evaluations a step, one for each half. Backward passes are in the seconds only.
    """

    mitigation: Mitigation | None = None

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        begin, rows = _now(model), [0]
        handle = model.unet.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
        try:
            changed = self.mitigation(model, setup) if self.mitigation else setup
        except BaseException:
            handle.remove()
            raise
        extras = dict(changed.extras)

        @contextmanager
        def attention_context() -> Iterator[None]:
            try:
                with changed.attention_context():
                    yield
            finally:
                handle.remove()
                for name, total in (("cost.seconds", _now(model) - begin), ("cost.evaluations", sum(rows))):
                    extras[name] = torch.full((len(setup.seeds),), total / len(setup.seeds))

        return replace(changed, attention_context=attention_context, extras=extras)


def _now(model: Denoiser) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def flops_per_image(model: Denoiser, setup: SamplingSetup, mitigation: Mitigation | None = None) -> float:
    """Count the network's floating-point operations for one image, gradients included, with torch's counter.

    Without a mitigation every step costs the same, so that only one is run.
    """
    name = type(model).__name__  # excludes the text encoder and the autoencoder
    with FlopCounterMode(display=False) as counter:
        changed = mitigation(model, setup) if mitigation else setup
        deque(islice(sample_steps(model, changed), None if mitigation else 1), maxlen=0)
    total = sum(counter.get_flop_counts().get(name, {}).values())
    return total * (1 if mitigation else len(setup.scheduler().timesteps)) / len(setup.seeds)


def cached_gflops(file: Path, label: str, model: Denoiser, setup: SamplingSetup, mitigation: Mitigation | None) -> float:
    """`flops_per_image` / 1e9, counted once for each label and kept in a .json file."""
    known = read_json(file) if file.exists() else {}
    if label not in known:
        known[label] = flops_per_image(model, setup, mitigation) / 1e9
        file.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known[label]
