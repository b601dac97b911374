"""Outputs of a latent model's frozen encoders for the training set, encoded once and kept on disk by content."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from afterglow.cache import ArrayCache, cache_folder, content_key
from afterglow.functional.pixels import from_signed, to_signed
from afterglow.planting.dataset import PlantedDataset, SampleKey


def weights_key(module: Any) -> bytes:
    """A key that changes with any weight of a frozen module, and with its configuration."""
    state, config = module.state_dict(), module.config
    settings = {name: value for name, value in (config if isinstance(config, dict) else config.to_dict()).items() if name[0] != "_"}
    return content_key(str(settings), *(part for name in state for part in (name, state[name].cpu().float().numpy())))


def cache_latents(vae: Any, encode: Callable[[Tensor], Tensor], dataset: PlantedDataset, num_samples: int, **processes: int) -> ArrayCache:
    """Encode the images of the first training samples.

    Args:
        vae: the autoencoder, whose weights name the cache.
        encode: pixels [B, 3, H, W] in [-1, 1] to moments [B, 2C, h, w].
        dataset: the training samples.
        num_samples: number of samples of the whole training.
        processes: rank and world_size of the processes that encode together.

    Returns:
        Moments [2C, h, w] by the dataset's sample keys.
    """
    samples = map(SampleKey._make, np.unique(dataset.keys(range(num_samples)), axis=0).tolist())

    def pixels(*keys: SampleKey) -> Tensor:
        return dataset.images(np.array(keys))

    def make(keys: list[Any]) -> np.ndarray:
        return encode(to_signed(pixels(*keys))).half().cpu().numpy()

    contents = {key: content_key(pixels(key)[0].cpu().numpy()) for key in samples}
    return _fill("latents", [vae], contents, make, "encoding images", **processes)


def cache_text_embeddings(
    encoders: Sequence[Any], encode: Callable[[list[str]], Tensor], captions: Sequence[str], ids: Tensor, **processes: int
) -> ArrayCache:
    """Encode captions.

    Args:
        encoders: the text encoders, whose weights name the cache.
        encode: B captions to token embeddings [B, L, D].
        captions: N distinct captions.
        ids: their token ids, int64 [N, L].
        processes: rank and world_size of the processes that encode together.

    Returns:
        Token embeddings [L, D] by caption.
    """
    keys = {caption: content_key(row.numpy()) for caption, row in zip(captions, ids, strict=True)}
    return _fill("texts", encoders, keys, lambda texts: encode(texts).half().cpu().numpy(), "encoding captions", **processes)


def cache_reconstructions(vae: Any, reconstruct: Callable[[Tensor], Tensor], pixels: np.ndarray) -> np.ndarray:
    """Reconstruct images uint8 [N, 3, H, W] with an autoencoder, each once.

    Args:
        vae: the autoencoder, whose weights name the cache.
        reconstruct: pixels [B, 3, H, W] in [-1, 1] to the same after encoding and decoding.
        pixels: the images.

    Returns:
        Reconstructions, uint8 [N, 3, H, W]; read from disk on access if they are many.
    """

    def make(rows: list[Any]) -> np.ndarray:
        decoded = reconstruct(to_signed(pixels[rows]))
        return from_signed(decoded.float()).cpu().numpy()

    keys = {row: content_key(pixels[row]) for row in range(len(pixels))}
    return _fill("reconstructions", [vae], keys, make, "reconstructing images").stack()


def _fill(
    name: str,
    modules: Sequence[Any],
    keys: Mapping[Any, bytes],
    make: Callable[[list[Any]], np.ndarray],
    description: str,
    **processes: int,
) -> ArrayCache:
    cache = ArrayCache(cache_folder() / name / "-".join(weights_key(module).hex() for module in modules), dict(keys))
    cache.fill(make, description=description, **processes)
    return cache
