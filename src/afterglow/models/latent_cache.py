"""Outputs of a latent model's frozen encoders for the training set, encoded once and kept on disk by content."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from afterglow.cache import ArrayCache, cache_folder, content_key
from afterglow.functional.pixels import from_signed, to_signed
from afterglow.planting.dataset import PlantedDataset


def weights_key(module: Any) -> bytes:
    """A key that changes with any weight of a frozen module, and with its configuration."""
    state, config = module.state_dict(), module.config
    settings = {name: value for name, value in (config if isinstance(config, dict) else config.to_dict()).items() if name[0] != "_"}
    return content_key(str(settings), *(part for name in state for part in (name, state[name].cpu().float().numpy())))


def cache_latents(
    vae: Any, encode: Callable[[Tensor], Tensor], dataset: PlantedDataset, num_samples: int, rank: int, world_size: int
) -> ArrayCache:
    """Encode the images of the first `num_samples` training samples.

    Args:
        vae: the autoencoder, whose weights name the cache.
        encode: pixels [B, 3, H, W] in [-1, 1] to moments [B, 2C, h, w].
        dataset: the training samples.
        num_samples: number of samples of the whole training.
        rank: number of this process.
        world_size: number of processes, which encode together.

    Returns:
        Moments [2C, h, w] by the dataset's sample keys.
    """
    distinct = dict.fromkeys(dataset.key(index) for index in range(num_samples))
    keys: dict[Any, bytes] = {sample: content_key(dataset.pixels(sample)) for sample in distinct}
    cache = ArrayCache(_folder("latents", vae), keys)

    def make(samples: list[Any]) -> np.ndarray:
        pixels = np.stack([dataset.pixels(sample) for sample in samples])
        return encode(to_signed(pixels)).half().cpu().numpy()

    cache.fill(make, rank=rank, world_size=world_size, description="encoding images")
    return cache


def cache_text_embeddings(
    encoder: Any, encode: Callable[[list[str]], Tensor], captions: Sequence[str], ids: Tensor, rank: int, world_size: int
) -> ArrayCache:
    """Encode captions.

    Args:
        encoder: the text encoder, whose weights name the cache.
        encode: B captions to token embeddings [B, L, D].
        captions: N distinct captions.
        ids: their token ids, int64 [N, L].
        rank: number of this process.
        world_size: number of processes, which encode together.

    Returns:
        Token embeddings [L, D] by caption.
    """
    keys: dict[Any, bytes] = {caption: content_key(row.numpy()) for caption, row in zip(captions, ids, strict=True)}
    cache = ArrayCache(_folder("texts", encoder), keys)

    def make(texts: list[Any]) -> np.ndarray:
        return encode(texts).half().cpu().numpy()

    cache.fill(make, rank=rank, world_size=world_size, description="encoding captions")
    return cache


def cache_reconstructions(vae: Any, reconstruct: Callable[[Tensor], Tensor], pixels: np.ndarray) -> np.ndarray:
    """Reconstruct images with an autoencoder, each once.

    Args:
        vae: the autoencoder, whose weights name the cache.
        reconstruct: pixels [B, 3, H, W] in [-1, 1] to the same after encoding and decoding.
        pixels: uint8 [N, 3, H, W].

    Returns:
        Reconstructions, uint8 [N, 3, H, W]; read from disk on access if they are many.
    """
    keys = {row: content_key(pixels[row]) for row in range(len(pixels))}
    cache = ArrayCache(_folder("reconstructions", vae), keys)

    def make(rows: list[Any]) -> np.ndarray:
        decoded = reconstruct(to_signed(pixels[rows]))
        return from_signed(decoded.float()).cpu().numpy()

    cache.fill(make, description="reconstructing images")
    return cache.stack()


def _folder(name: str, module: Any) -> Path:
    return cache_folder() / name / weights_key(module).hex()
