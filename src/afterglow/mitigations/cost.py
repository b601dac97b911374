"""What a mitigation costs: seconds and evaluations of the network for an image, and operations by torch's counter."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from afterglow.mitigations.inference.passes import sample_steps
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import Mitigation, SamplingSetup


@dataclass(frozen=True)
class CostTracker:
    """A mitigation, or none, that notes what its passes cost.

    cost.seconds: from the text states to the last step, an image; cost.evaluations: of the network, an image: a plain pass has two
    a step, one for each half. Steps back for gradients are in the seconds and in the FLOPs alone.
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
        notes, num = dict(changed.notes), len(setup.seeds)

        @contextmanager
        def edit() -> Iterator[None]:
            try:
                with changed.edit():
                    yield
            finally:
                handle.remove()
                for name, total in (("cost.seconds", _now(model) - begin), ("cost.evaluations", sum(rows))):
                    notes[name] = torch.full((num,), total / num)

        return replace(changed, edit=edit, notes=notes)


def _now(model: Denoiser) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def flops_an_image(model: Denoiser, setup: SamplingSetup, mitigation: Mitigation | None = None) -> float:
    """Floating-point operations of the network for one image of a course, its gradients included; by torch's counter.

    Without a mitigation every step costs the same, so that one is run.
    """
    name = type(model).__name__  # calls of the text encoder and the autoencoder are not in it
    with FlopCounterMode(display=False) as counter:
        changed = mitigation(model, setup) if mitigation else setup
        steps = 0
        for _ in sample_steps(model, changed):
            steps += 1
            if mitigation is None:
                break
    total = sum(counter.get_flop_counts().get(name, {}).values())
    return total * len(setup.scheduler().timesteps) / steps / len(setup.seeds) if mitigation is None else total / len(setup.seeds)


def remembered_gflops(file: Path, label: str, model: Denoiser, setup: SamplingSetup, mitigation: Mitigation | None) -> float:
    """flops_an_image / 1e9, counted once for each label and kept in a file."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if label not in known:
        known[label] = flops_an_image(model, setup, mitigation) / 1e9
        file.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known[label]
