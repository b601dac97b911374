"""The record of one batch of generations that all measures read, and its folder format."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from afterglow.attention_names import ATTENTION_COLUMNS
from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError, reading
from afterglow.files import read_json
from afterglow.kinds import COPYABLE

# Infinite without finite backgrounds, NaN without an own reference, infinite with few clusters.
MAY_BE_INFINITE = ("background_distance", "background_spread", "reconstruction_error", "tile_distances")
COLLECTION_SETTINGS = "collect.json"
STRINGS = ("caption", "kind", "shape")
COUNTS = ("plant_id", "seed", "prompt_length")
STEPS_FIRST = ("guidance", "guidance_rms", "token_attention")


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
        end_attention: {(step index, layer): fp16 [B, h*w, 6]}, attention to the end tokens and token groups of ATTENTION_COLUMNS.
        extras: {name: [B, ...]}, inputs of measures that a model, an encoder or the training set provides.
        neighbors: nearest training clusters inside eval_mask.
        provenance: model, step, sampler, T, guidance scale, dtype, layers, whether pads are masked, sink group, library versions.
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
        return replace(self, **_grouped({name: change(tensor, int(name in STEPS_FIRST)) for name, tensor in self.tensors().items()}))

    def with_extras(self, *, provenance: Mapping[str, str] = {}, **extras: Tensor) -> "Generations":  # noqa: B006  (not changed)
        """The same generations with more extras, [B, ...] each, and the encoders that made them."""
        return replace(self, extras={**self.extras, **extras}, provenance={**self.provenance, **provenance})

    @classmethod
    def cat(cls, parts: "Sequence[Generations]") -> "Generations":
        """Concatenate batches of one model and sampler."""
        flat = [part.tensors() for part in parts]
        joined = {name: torch.cat([part[name] for part in flat], dim=int(name in STEPS_FIRST)) for name in flat[0]}
        strings: dict[str, Any] = {name: sum((getattr(part, name) for part in parts), ()) for name in STRINGS}
        return cls(**_grouped(joined), **strings, timesteps=parts[0].timesteps, provenance=parts[0].provenance)

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

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor with one row per generation, by its name on disk: field, field/key or end_attention/step/layer."""
        flat: dict[str, Tensor] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) and item.name != "timesteps":
                flat[item.name] = value
            elif item.name in ("end_attention", "extras", "neighbors") and value:
                for key, tensor in (vars(value) if isinstance(value, Neighbors) else value).items():
                    flat["/".join(map(str, (item.name, *(key if isinstance(key, tuple) else (key,)))))] = tensor
        return flat

    def save(self, folder: Path) -> None:
        """Write a `datasets` folder with one row per generation and tensors.safetensors beside it, readable without Afterglow."""
        import datasets

        datasets.disable_progress_bars()
        columns: dict[str, list] = {name: list(getattr(self, name)) for name in STRINGS if getattr(self, name)}
        columns |= {name: value.tolist() for name in COUNTS if (value := getattr(self, name)) is not None}
        # copies: two fields may be one tensor (a region that is the mask), which safetensors refuses
        tensors = {"timesteps": self.timesteps} | {name: tensor for name, tensor in self.tensors().items() if name not in COUNTS}
        tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        with atomic_path(folder) as path:
            datasets.Dataset.from_dict(columns).save_to_disk(str(path / "table"))
            (path / "tensors.safetensors").write_bytes(save(tensors))  # a full disk is an OSError here
            (path / "provenance.json").write_text(json.dumps(dict(self.provenance), indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> "Generations":
        """Read a folder that `save` wrote; AfterglowError names what is missing or broken."""
        for name in ("table", "tensors.safetensors", "provenance.json"):
            if not (folder / name).exists():
                raise AfterglowError(f"There are no generations in '{folder}': {name} is missing.")
        import datasets

        with reading(folder, "a collection of generations"):
            table = datasets.Dataset.load_from_disk(str(folder / "table"))
            found: dict[str, Any] = {name: tuple(table[name]) for name in STRINGS if name in table.column_names}
            found |= {name: torch.tensor(table[name]) for name in COUNTS if name in table.column_names}
            found |= _grouped(load_file(folder / "tensors.safetensors"))
            if any(tensor.shape[-1] != len(ATTENTION_COLUMNS) for tensor in found.get("end_attention", {}).values()):
                raise AfterglowError(f"The end-token attention in '{folder}' is of another version of Afterglow: collect it again.")
            return cls(**found, provenance=dict(read_json(folder / "provenance.json")))


def _grouped(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of generations from `Generations.tensors`."""
    found: dict[str, Any] = {}
    for path, tensor in flat.items():
        name, _, key = path.partition("/")
        if name == "end_attention":
            step, _, layer = key.partition("/")
            found.setdefault(name, {})[int(step), layer] = tensor
        elif key:
            found.setdefault(name, {})[key] = tensor
        else:
            found[name] = tensor
    return found | ({"neighbors": Neighbors(**found["neighbors"])} if "neighbors" in found else {})


def parts_of(folder: Path) -> list[Path]:
    """The parts of a collection in order, or the folder itself if it holds generations; AfterglowError if there are none."""
    if (folder / "tensors.safetensors").exists():
        return [folder]
    if not (parts := _parts(folder)):
        raise AfterglowError(f"There are no generations in '{folder}': `afterglow collect` writes them.")
    return parts


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("part=*") if not path.name.endswith(".unfinished"))


def check_complete(folder: Path) -> None:
    """Raise AfterglowError if a collection lacks parts that its settings announce."""
    settings = folder / COLLECTION_SETTINGS
    if settings.is_file():
        with reading(settings, "the settings of a collection"):
            found = read_json(settings)
            count = -(-len(found["captions"]) // found["plan"]["prompts_per_part"])
        if (exist := len(_parts(folder))) < count:
            raise AfterglowError(f"'{folder}' is incomplete: it has {exist} of {count} parts. The same `afterglow collect` continues it.")


def check_finite(generations: Generations) -> None:
    """Raise AfterglowError if a field holds NaN or infinity; the message names the field, caption and seed."""
    for name, tensor in generations.tensors().items():
        group, _, key = name.partition("/")
        if group not in (*STEPS_FIRST, "end_attention", "extras") or key in MAY_BE_INFINITE:
            continue
        bad = (~tensor.isfinite()).movedim(int(name in STEPS_FIRST), 0).reshape(len(generations), -1).any(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            sample = f"'{generations.caption[row]}', seed {int(generations.seed[row])}"
            raise AfterglowError(f"The generations contain NaN or infinity: {name} of {sample}.")
