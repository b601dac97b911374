"""Room 4, the waist: everything that one batch of generations left behind, as one frozen value and as a folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afterglow.kinds import COPYABLE

END_TOKEN_RULES = ("first_eos", "last", "eos_and_pads")  # the columns of end_attention


@dataclass(frozen=True)
class Neighbors:
    """Nearest training groups of B generations. clusters: int64 [B, K]; distances: float32 [B, K], root mean square in [0,1] pixels.

    Column 0 is the plant's own group (distance to the reference), the others are the nearest other groups, nearest first;
    where the set has fewer, group -1 at an infinite distance.
    """

    clusters: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Generations:
    """B generations over T sampler steps, and the truth they are judged by. Tensors lie on the CPU; what was not captured is None.

    images, references: uint8 [B, C, H, W]; eval_mask, region: bool [B, 1, H, W] (region: where maps are judged).
    caption, kind, shape: B strings; plant_id, seed, prompt_length: int64 [B]; timesteps: int64 [T].
    guidance: fp16 [T, B, C, h, w], Delta_t = eps_c - eps_u divided by guidance_rms, float32 [T, B].
    token_attention: fp16 [T, B, layers, L], averaged over pixels and heads.
    end_attention: {(step index, layer): fp16 [B, h*w, rules]}, one column for each rule of END_TOKEN_RULES.
    latents: {step index: float32 [B, C, h, w]}; derived: {name: [B, ...]}, what only a model or the training set can tell.
    neighbors: nearest training clusters inside eval_mask.
    provenance: model, step, sampler, T, guidance scale, dtype, layers, whether pads are masked, library versions.
    """

    images: Tensor
    caption: tuple[str, ...]
    seed: Tensor
    timesteps: Tensor
    kind: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    plant_id: Tensor | None = None
    prompt_length: Tensor | None = None
    references: Tensor | None = None
    eval_mask: Tensor | None = None
    region: Tensor | None = None
    guidance: Tensor | None = None
    guidance_rms: Tensor | None = None
    token_attention: Tensor | None = None
    end_attention: Mapping[tuple[int, str], Tensor] | None = None
    latents: Mapping[int, Tensor] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    neighbors: Neighbors | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | Sequence[int] | slice) -> "Generations":
        """The same generations of some of the generations."""
        index = torch.arange(len(self))[rows]
        chosen: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in index.tolist()) for name in STRINGS if getattr(self, name)}
        return replace(self.map(lambda tensor, dim: tensor.index_select(dim, index)), **chosen)

    def map(self, change: Callable[[Tensor, int], Tensor]) -> "Generations":
        """Every tensor that has a row a generation, changed: change(tensor, the dimension that counts generations)."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            dim = 1 if item.name in STEPS_FIRST else 0
            if item.name == "timesteps" or value is None:
                continue
            if isinstance(value, Tensor):
                changed[item.name] = change(value, dim)
            elif isinstance(value, Neighbors):
                changed[item.name] = Neighbors(change(value.clusters, 0), change(value.distances, 0))
            elif item.name in ("end_attention", "latents", "extras"):
                changed[item.name] = {key: change(tensor, 0) for key, tensor in value.items()}
        return replace(self, **changed)

    @classmethod
    def cat(cls, parts: "Sequence[Generations]") -> "Generations":
        """The generations of several batches of one run as one."""
        joined = {item.name: [getattr(part, item.name) for part in parts] for item in fields(cls)}
        same = {name: joined.pop(name)[0] for name in ("timesteps", "provenance")}
        return cls(**same, **{name: _join(values, 1 if name in STEPS_FIRST else 0) for name, values in joined.items()})

    @property
    def planted_mask(self) -> Tensor:
        """Bool [B, 1, H, W]: eval_mask of plants and phantoms; empty where nothing is planted (decoys, tints, controls, ...)."""
        assert self.eval_mask is not None
        planted = torch.tensor([kind in COPYABLE for kind in self.kind], dtype=torch.bool)
        return self.eval_mask & planted[:, None, None, None]

    @property
    def layers(self) -> list[str]:
        """Layers whose end-token attention was kept, in the order in which they run."""
        return list(dict.fromkeys(layer for _, layer in self.end_attention or {}))

    def save(self, folder: Path) -> None:
        """A `datasets` folder with one row a generation, and tensors.safetensors beside it: readable without Afterglow."""
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, list] = {name: list(getattr(self, name)) for name in STRINGS if getattr(self, name)}
        columns |= {name: value.tolist() for name in COUNTS if (value := getattr(self, name)) is not None}
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(columns).save_to_disk(str(folder / "table"))
        # copies: two fields may be one tensor (a region that is the mask), which safetensors refuses
        tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in self._tensors().items()}
        save_file(tensors, folder / "tensors.safetensors")
        (folder / "provenance.json").write_text(json.dumps(dict(self.provenance), indent=1), encoding="utf-8")

    def _tensors(self) -> dict[str, Tensor]:
        flat: dict[str, Tensor] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) and item.name not in COUNTS:
                flat[item.name] = value
            elif isinstance(value, Neighbors):
                flat |= {f"{item.name}/clusters": value.clusters, f"{item.name}/distances": value.distances}
            elif item.name == "end_attention" and value:
                flat |= {f"end_attention/{step}/{layer}": tensor for (step, layer), tensor in value.items()}
            elif item.name in ("latents", "extras") and value:
                flat |= {f"{item.name}/{key}": tensor for key, tensor in value.items()}
        return flat

    @classmethod
    def load(cls, folder: Path) -> "Generations":
        """Raises ValueError where the folder holds no generations, naming the missing file."""
        for name in ("table", "tensors.safetensors", "provenance.json"):
            if not (folder / name).exists():
                raise ValueError(f"There is no generations in '{folder}': {name} is missing.")
        table = datasets.Dataset.load_from_disk(str(folder / "table"))
        found: dict[str, Any] = {name: tuple(table[name]) for name in STRINGS if name in table.column_names}
        found |= {name: torch.tensor(table[name]) for name in COUNTS if name in table.column_names}
        for path, tensor in load_file(folder / "tensors.safetensors").items():
            name, _, rest = path.partition("/")
            if name == "end_attention":
                step, _, layer = rest.partition("/")
                found.setdefault(name, {})[int(step), layer] = tensor
            elif rest:
                found.setdefault(name, {})[int(rest) if name == "latents" else rest] = tensor
            else:
                found[name] = tensor
        if "neighbors" in found:
            found["neighbors"] = Neighbors(**found["neighbors"])
        return cls(**found, provenance=json.loads((folder / "provenance.json").read_text(encoding="utf-8")))


def parts_of(folder: Path) -> list[Path]:
    """The folders of generations in a collection, in order; the folder itself where it is one. ValueError where there is none."""
    if (folder / "tensors.safetensors").exists():
        return [folder]
    found = sorted(path for path in folder.glob("part=*") if not path.name.endswith(".unfinished"))
    if not found:
        raise ValueError(f"There is no generations in '{folder}': `python analysis/collect.py` writes it.")
    return found


def check_finite(generations: Generations) -> None:
    """Raises ValueError that names a field that holds NaN or infinity, and the caption and seed it belongs to."""
    kept: dict[str, tuple[Tensor, int]] = {}
    for name in ("guidance", "guidance_rms", "token_attention"):
        if getattr(generations, name) is not None:
            kept[name] = getattr(generations, name), 1
    for step, layer in generations.end_attention or {}:
        kept[f"end_attention of {layer}"] = generations.end_attention[step, layer], 0  # type: ignore[index]
    for name, tensor in generations.extras.items():
        if name not in MAY_BE_INFINITE:
            kept[name] = tensor, 0
    for name, (tensor, dim) in kept.items():
        bad = (~tensor.isfinite()).movedim(dim, 0).reshape(len(generations), -1).any(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise ValueError(
                f"The generations holds NaN or infinity: {name} of '{generations.caption[row]}', seed {int(generations.seed[row])}."
            )


MAY_BE_INFINITE = (
    "background_distance",
    "background_spread",
    "reconstruction_error",
    "tile_distances",
)  # no finite variants, no reference of its own, few groups
STRINGS = ("caption", "kind", "shape")
COUNTS = ("plant_id", "seed", "prompt_length")
STEPS_FIRST = ("guidance", "guidance_rms", "token_attention")


def _join(values: Sequence[Any], dim: int) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values), dim=dim)
    if isinstance(first, Neighbors):
        return Neighbors(torch.cat([v.clusters for v in values]), torch.cat([v.distances for v in values]))
    if isinstance(first, tuple):
        return tuple(text for value in values for text in value)
    if isinstance(first, Mapping):
        return {key: torch.cat([value[key] for value in values]) for key in first}
    return None
