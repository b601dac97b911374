"""What the frozen parts of a latent model say of the training set, encoded once and kept on disk by content."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from afterglow.cache import ArrayCache, cache_folder, content_key
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.plants import PlantedSet

if TYPE_CHECKING:
    from afterglow.models.stable_diffusion import StableDiffusion


def weights_key(module: Any) -> bytes:
    """Changes with any weight of a frozen module; of its configuration, too, since two may share their weights."""
    state, config = module.state_dict(), module.config
    settings = {name: value for name, value in (config if isinstance(config, dict) else config.to_dict()).items() if name[0] != "_"}
    return content_key(str(settings), *(part for name in state for part in (name, state[name].cpu().float().numpy())))


def cache_latents(model: "StableDiffusion", samples: PlantedDataset, total: int, share: tuple[int, int]) -> ArrayCache:
    """Moments [2C, h, w] of everything that the first `total` samples show, by PlantedSamples.shown."""
    distinct = dict.fromkeys(samples.key(index) for index in range(total))
    keys: dict[Any, bytes] = {shown: content_key(samples.pixels(shown)) for shown in distinct}
    cache = ArrayCache(_folder("latents", weights_key(model.beside.module)), keys)

    def make(some: list[Any]) -> np.ndarray:
        pixels = np.stack([samples.pixels(shown) for shown in some])
        return model.moments(torch.from_numpy(pixels).float() / 127.5 - 1).half().cpu().numpy()

    cache.fill(make, rank=share[0], world_size=share[1], description="encoding images")
    return cache


def cache_text_embeddings(model: "StableDiffusion", planted: PlantedSet, share: tuple[int, int]) -> ArrayCache:
    """Token states [L, D] of every caption of a planted set and of the empty one, by caption."""
    captions = list(dict.fromkeys(["", *(plant.caption for plant in planted.plants), *planted.captions]))
    keys: dict[Any, bytes] = {
        caption: content_key(ids.numpy()) for caption, ids in zip(captions, model.tokenize(captions)["input_ids"], strict=True)
    }
    cache = ArrayCache(_folder("texts", weights_key(model.text.encoder)), keys)

    def make(some: list[Any]) -> np.ndarray:
        return model.condition(some).states.half().cpu().numpy()

    cache.fill(make, rank=share[0], world_size=share[1], description="encoding captions")
    return cache


def cache_reconstructions(model: Any, pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, C, H, W] => the images as the autoencoder gives them back, uint8, each made once; read from disk where they are many."""
    keys = {row: content_key(pixels[row]) for row in range(len(pixels))}
    cache = ArrayCache(_folder("reconstructions", weights_key(model.beside.module)), keys)

    def make(rows: list[Any]) -> np.ndarray:
        decoded = model.decode(model.encode(torch.from_numpy(pixels[rows]).float() / 127.5 - 1))
        return ((decoded.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    cache.fill(make, description="reconstructing images")
    return cache.stack()


def _folder(what: str, key: bytes) -> Any:
    return cache_folder() / what / key.hex()
