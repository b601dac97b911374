"""The record of one batch of generations that all measures read, and its folder format."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afterglow.errors import AfterglowError, reading
from afterglow.files import read_json
from afterglow.kinds import COPYABLE

END_TOKEN_RULES = ("first_eos", "last", "eos_and_pads")  # the columns of end_attention


@dataclass(frozen=True)
class Neighbors:
    """The nearest training clusters of B generations, inside eval_mask.

    Attributes:
        clusters: int64 [B, K]; column 0 is the reference's own cluster, the others are the nearest other ones, nearest first; -1
            where the set has fewer.
        distances: float32 [B, K], root mean square in [0, 1] pixels, infinite where the set has fewer; column 0: to the reference.
    """

    clusters: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Generations:
    """B generations over T sampler steps with their ground truth. Tensors are on the CPU; None: not captured, or unknown.

    Attributes:
        images: uint8 [B, C, H, W].
        caption: B strings.
        seed: int64 [B].
        timesteps: int64 [T].
        kind: B strings.
        shape: B strings, shape of the region.
        plant_id: int64 [B].
        prompt_length: int64 [B], counts BOS and the first EOS.
        references: uint8 [B, C, H, W], the plant, or the nearest training image.
        eval_mask: bool [B, 1, H, W], where generations are compared with references.
        region: bool [B, 1, H, W], where maps should be high.
        guidance: fp16 [T, B, C, h, w], Delta_t = eps_c - eps_u divided by guidance_rms.
        guidance_rms: float32 [T, B].
        token_attention: fp16 [T, B, layers, L], averaged over pixels and heads.
        end_attention: {(step index, layer): fp16 [B, h*w, rules]}, one column per rule of END_TOKEN_RULES.
        latents: {step index: float32 [B, C, h, w]}.
        extras: {name: [B, ...]}, inputs of measures that a model, an encoder or the training set provides.
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
        """The selected rows."""
        index = torch.arange(len(self))[rows]
        chosen: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in index.tolist()) for name in STRINGS if getattr(self, name)}
        return replace(self.map(lambda tensor, dim: tensor.index_select(dim, index)), **chosen)

    def map(self, change: Callable[[Tensor, int], Tensor]) -> "Generations":
        """Apply change(tensor, dimension of the generations) to every tensor that has one row per generation."""
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
        """Concatenate batches of one model and sampler."""
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
        """Layers whose end-token attention was captured, in the order in which they run."""
        return list(dict.fromkeys(layer for _, layer in self.end_attention or {}))

    def save(self, folder: Path) -> None:
        """Write a `datasets` folder with one row per generation and tensors.safetensors beside it, readable without Afterglow."""
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, list] = {name: list(getattr(self, name)) for name in STRINGS if getattr(self, name)}
        columns |= {name: value.tolist() for name in COUNTS if (value := getattr(self, name)) is not None}
        import datasets

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
        """Read a folder that `save` wrote; AfterglowError names the file if one is missing."""
        for name in ("table", "tensors.safetensors", "provenance.json"):
            if not (folder / name).exists():
                raise AfterglowError(f"There are no generations in '{folder}': {name} is missing.")
        with reading(folder, "a collection of generations"):
            return cls._load(folder)

    @classmethod
    def _load(cls, folder: Path) -> "Generations":
        import datasets

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
        return cls(**found, provenance=read_json(folder / "provenance.json"))


def parts_of(folder: Path) -> list[Path]:
    """The parts of a collection in order, or the folder itself if it holds generations; AfterglowError if there are none."""
    if (folder / "tensors.safetensors").exists():
        return [folder]
    parts = sorted(path for path in folder.glob("part=*") if not path.name.endswith(".unfinished"))
    if not parts:
        raise AfterglowError(f"There are no generations in '{folder}': `afterglow collect` writes them.")
    return parts


def check_finite(generations: Generations) -> None:
    """Raise AfterglowError if a field holds NaN or infinity; the message names the field, caption and seed."""
    tensors: dict[str, tuple[Tensor, int]] = {}  # with the dimension of the generations
    for name in ("guidance", "guidance_rms", "token_attention"):
        if getattr(generations, name) is not None:
            tensors[name] = getattr(generations, name), 1
    for step, layer in generations.end_attention or {}:
        tensors[f"end_attention of {layer}"] = generations.end_attention[step, layer], 0  # type: ignore[index]
    for name, tensor in generations.extras.items():
        if name not in MAY_BE_INFINITE:
            tensors[name] = tensor, 0
    for name, (tensor, dim) in tensors.items():
        bad = (~tensor.isfinite()).movedim(dim, 0).reshape(len(generations), -1).any(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            sample = f"'{generations.caption[row]}', seed {int(generations.seed[row])}"
            raise AfterglowError(f"The generations contain NaN or infinity: {name} of {sample}.")


MAY_BE_INFINITE = (
    "background_distance",
    "background_spread",
    "reconstruction_error",
    "tile_distances",
)  # without finite backgrounds, without an own reference, with few clusters
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
