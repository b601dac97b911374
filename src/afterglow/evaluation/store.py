"""A long collection as a folder of parts: streams, goes on where it was killed, and is the same for any number of processes."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from afterglow.generations import Generations
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig
from afterglow.sampling.setup import Mitigation

SETTINGS = "collect.json"
SEED_RULES: Mapping[str, Callable[[int, int, int], int]] = {  # (first seed, prompt, image of the prompt) => seed
    "image": lambda first, prompt, image: first + image,  # every prompt starts from the same noises: ours
    "prompt": lambda first, prompt, image: first + prompt + 1_000_003 * image,  # first + prompt for the first image: Wen, Chen, Ren
    "constant": lambda first, prompt, image: first if image == 0 else first + 1_000_003 * image,  # one seed for all prompts: Jeon
}


@dataclass(frozen=True)
class GenerationPlan:
    """What is to be collected: captions, the generations of each, and how.

    Args:
        captions: one for each prompt.
        num_images: generations of each.
        seed: the first seed.
        seed_rule: image, prompt or constant.
        prompts_per_part: prompts in one part; a part is what a kill can cost.
    """

    captions: Sequence[str]
    num_images: int = 4
    seed: int = 0
    seed_rule: str = "image"
    prompts_per_part: int = 8

    def __post_init__(self) -> None:
        if self.num_images < 1 or self.prompts_per_part < 1:
            raise ValueError("At least one image of each prompt, and one prompt in a part.")
        if self.seed_rule not in SEED_RULES:
            raise ValueError(f"The seed rule is one of {', '.join(SEED_RULES)}, and not '{self.seed_rule}'.")

    def parts(self) -> list[list[int]]:
        """The rows of `captions` of each part."""
        rows = range(len(self.captions))
        return [list(rows[start : start + self.prompts_per_part]) for start in range(0, len(rows), self.prompts_per_part)]

    def seeds(self, prompt: int) -> list[int]:
        return [SEED_RULES[self.seed_rule](self.seed, prompt, image) for image in range(self.num_images)]


def collect(
    model: Denoiser,
    order: GenerationPlan,
    folder: Path,
    sampler: Sampler,
    capture: CaptureConfig,
    *,
    finish: Callable[[Generations, list[int]], Generations] = lambda generations, rows: generations,
    share: tuple[int, int] = (0, 1),
    about: Mapping[str, Any] | None = None,
    early: Denoiser | None = None,
    mitigation: Mitigation | None = None,
    batch_size: int = 32,
) -> None:
    """Write the generations of all prompts to `folder`/part=N, this process's share of the parts; those that are there are kept.

    finish: adds truth to the generations of a part, given its rows of the order, one for each generation. about: what else the
    settings must agree on. Raises ValueError where the folder holds a collection with other settings.
    """
    agreed = dict(about or {}) | ({} if mitigation is None else {"mitigation": str(mitigation)})
    _agree(folder, {"order": asdict(order), "sampler": asdict(sampler), "capture": asdict(capture), "about": agreed})
    first, stride = share
    parts = list(enumerate(order.parts()))[first::stride]
    for number, rows in tqdm(parts, desc=str(folder), unit="part", disable=first > 0):
        place = folder / f"part={number:05d}"
        if place.exists():
            continue
        each = [row for row in rows for _ in range(order.num_images)]
        seeds = [seed for row in rows for seed in order.seeds(row)]
        captions = [order.captions[row] for row in each]
        generations = generate(model, captions, seeds, sampler, capture, batch_size=batch_size, early=early, mitigation=mitigation)
        unfinished = place.with_name(f"{place.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        finish(generations, each).save(unfinished)
        os.replace(unfinished, place)


def _agree(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those of a collection that is continued."""
    settings = json.loads(json.dumps(settings))
    file = folder / SETTINGS
    if not file.exists():
        if folder.exists() and any(not path.name.startswith((SETTINGS, "part=")) for path in folder.iterdir()):
            raise ValueError(f"'{folder}' holds other things than a collection: give this one a folder of its own.")
        folder.mkdir(parents=True, exist_ok=True)
        mine = folder / f"{SETTINGS}.{os.getpid()}"  # processes that begin together write the same, each whole
        mine.write_text(json.dumps(settings), encoding="utf-8")
        os.replace(mine, file)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = [name for part in settings for name in _changed(before.get(part), settings[part], part)]
    if changed:
        raise ValueError(f"'{folder}' was begun with other settings ({', '.join(changed)}): repeat those, or give this one another folder.")


def _changed(before: Any, now: Any, name: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [f"{name}.{key}" for key in now if before.get(key) != now[key]]
    return [] if before == now else [name]
