"""A collection: a folder with one folder of generations per part. It resumes after interruption and is the same for any world size."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError, reading
from afterglow.evaluation.evaluate import generate_with_ground_truth
from afterglow.evaluation.requests import EvalRequest, GenerationPlan
from afterglow.files import read_json
from afterglow.generations import COLLECTION_SETTINGS
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import Sampler
from afterglow.sampling.recorder import CaptureConfig
from afterglow.sampling.setup import Mitigation


def collect(
    model: Denoiser,
    request: EvalRequest,
    plan: GenerationPlan,
    folder: Path,
    sampler: Sampler,
    capture: CaptureConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    metadata: Mapping[str, Any] | None = None,
    early: Denoiser | None = None,
    mitigation: Mitigation | None = None,
    batch_size: int = 32,
) -> None:
    """Generate for all captions of a request and write `folder`/part=N; parts that exist are not generated again.

    Args:
        folder: the collection's own folder.
        capture: what is recorded of each generation.
        rank: this process; it writes every `world_size`-th part, beginning with part `rank`.
        metadata: further settings that a resumed collection must share, besides those of the request.
        early: an earlier state of the model, for early_difference.
        mitigation: changes the sampling of every generation.

    Raises:
        AfterglowError: if the folder holds a collection with other settings, or other files.
    """
    settings = {"captions": list(request.captions), "plan": asdict(plan), "sampler": asdict(sampler), "capture": asdict(capture)}
    also = {"mitigation": str(mitigation)} if mitigation else {}
    _check_settings(folder, settings | {"metadata": {**request.metadata, **(metadata or {}), **also}})
    parts = list(enumerate(plan.parts(len(request.targets))))[rank::world_size]
    options: dict[str, Any] = {"batch_size": batch_size, "early": early, "mitigation": mitigation}
    for number, rows in tqdm(parts, desc=str(folder), unit="part", disable=rank > 0):
        part = folder / f"part={number:05d}"
        if not part.exists():
            generate_with_ground_truth(model, request, plan.samples(rows), sampler, capture, **options).save(part)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a new collection, or compare them with those of a collection that is resumed."""
    settings = json.loads(json.dumps(settings))
    file = folder / COLLECTION_SETTINGS
    if not file.exists():
        if folder.exists() and any(not path.name.startswith((COLLECTION_SETTINGS, "part=")) for path in folder.iterdir()):
            raise AfterglowError(f"'{folder}' contains files that do not belong to a collection: choose an empty folder.")
        with atomic_path(file) as path:  # processes that start together write equal files, each complete
            path.write_text(json.dumps(settings), encoding="utf-8")
        return
    before = read_json(file)
    with reading(file, "the settings of a collection"):
        changed = [name for group in settings for name in _changed(before.get(group), settings[group], group)]
    if changed:
        raise AfterglowError(f"'{folder}' was started with other settings ({', '.join(changed)}): use those, or another folder.")


def _changed(before: Any, now: Any, name: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [f"{name}.{key}" for key in now if before.get(key) != now[key]]
    return [] if before == now else [name]
