"""Similarity of images to training images, in pixels or in an embedding (docs/methods.md#extraction)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterglow.cache import ArrayCache, cache_folder, content_key
from afterglow.errors import AfterglowError
from afterglow.evaluation.embeddings import Encoder, mean_token_embedding, patch_tokens, sscd
from afterglow.neighbors.gallery import Gallery, nearest_clusters

_CHUNK = 64  # images that are embedded and stored together


@dataclass(frozen=True)
class SimilaritySpace:
    """Where similarity is measured.

    Args:
        name: for provenance.
        rows: the training images in this space, as `nearest` takes them.
        clusters: their clusters, int64 [N].
        embed: uint8 [B, C, H, W] to queries of `nearest`.
        similarity: distances to similarities, 1: identical.
        device: where distances are computed.
    """

    name: str
    rows: Any
    clusters: np.ndarray
    embed: Callable[[Tensor], Any]
    similarity: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"


def pixel_space(gallery: Gallery) -> SimilaritySpace:
    """Pixels: similarity is 1 - the root mean square distance in [0, 1]."""
    return SimilaritySpace("pixels, 1 - RMS distance", gallery.pixels, gallery.clusters, lambda x: x, lambda d: 1 - d, gallery.device)


def embedding_space(embedding: Encoder, gallery: Gallery, folder: Path, *, rank: int = 0, world_size: int = 1) -> SimilaritySpace:
    """An embedding of unit norm: similarity is the cosine, 1 - d^2 / 2.

    Args:
        folder: cache of the embeddings of the training images, for this embedding alone.
        rank: this process; it first embeds its own share of the images, then those that the others have not reached.

    Raises:
        AfterglowError: if an embedding is NaN or infinite.
    """
    cache = ArrayCache(folder, {row: content_key(np.asarray(gallery.pixels[np.array([row])])) for row in range(len(gallery.pixels))})

    def embed(images: Tensor) -> Tensor:
        values = embedding.compute(images)
        if not values.isfinite().all():
            raise AfterglowError(f"The embedding {embedding.name} of an image is NaN or infinite.")
        return values.float().cpu()

    def compute(rows: list) -> np.ndarray:
        return embed(torch.from_numpy(np.array(gallery.pixels[np.array(rows)]))).numpy()

    for first, stride in ((rank, world_size), (0, 1)):
        cache.reload()
        cache.fill(compute, rank=first, world_size=stride, chunk_size=_CHUNK, description=embedding.name)
    name = f"{embedding.name}, cosine"
    return SimilaritySpace(name, cache.stack(), gallery.clusters, embed, lambda d: 1 - d.square() / 2, gallery.device)


def similarity_space(
    gallery: Gallery,
    *,
    sscd_file: str | None = None,
    sscd_transform: str = "skew_320",
    tokens: str | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> SimilaritySpace:
    """SSCD or the mean patch token where a file is given, otherwise pixels; embeddings of training images are cached.

    Args:
        sscd_file: SSCD's TorchScript file, or 'immaculate'.
        sscd_transform: its preprocessing.
        tokens: folder of a vision transformer.
        world_size: number of processes, which embed together.

    Raises:
        AfterglowError: if both files are given, or one cannot be read.
    """
    if sscd_file and tokens:
        raise AfterglowError("Choose one similarity: --sscd or --vit.")
    if not (sscd_file or tokens):
        return pixel_space(gallery)
    embedding = sscd(sscd_file, sscd_transform) if sscd_file else mean_token_embedding(patch_tokens(str(tokens)))
    source = Path(sscd_file or str(tokens))
    files = sorted(source.glob("*")) if source.is_dir() else [source]
    weights = content_key(embedding.name, *(file.read_bytes() for file in files if file.is_file()))
    return embedding_space(embedding, gallery, cache_folder() / "embeddings" / weights.hex(), rank=rank, world_size=world_size)


def background_similarity(space: SimilaritySpace, count: int) -> np.ndarray:
    """Similarity of training images to the nearest other cluster, float32 [min(count, N)] (Somepalli et al. 2023).

    Args:
        count: size of the random sample of training images (seed 0).

    Raises:
        AfterglowError: if the training set is one cluster.
    """
    if len(np.unique(space.clusters)) < 2:
        raise AfterglowError("All training images form one cluster, so there is no other cluster to compare with.")
    rows = np.sort(np.random.default_rng(0).permutation(len(space.rows))[:count])
    near = nearest_clusters(np.asarray(space.rows[rows]), space.rows, space.clusters, 2, device=space.device)
    own = near.clusters[:, 0] == torch.from_numpy(space.clusters[rows])  # false for equal images of another cluster, at distance 0
    return space.similarity(torch.where(own, near.distances[:, 1], near.distances[:, 0])).numpy()
