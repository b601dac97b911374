"""Similarity of a generation and its training image: SSCD, S and LS (Chen et al. 2025, METHODS (a) and (f))."""

from torch import Tensor

from afterglow.generations import Generations
from afterglow.measures.guidance import resize

SAME = 0.5  # SSCD cosine from which the authors call a generation memorized


def copy_similarity(generations: Generations) -> Tensor:
    """SSCD cosine of a generation and its reference, [B]; model and preprocessing stand in the provenance."""
    return generations.extras["sscd"]


def similarity(generations: Generations, mask: Tensor | None = None, *, normalized: bool = False, latent: bool = False) -> Tensor:
    """S = -1[SSCD < .5] ||x_hat - x||_2, and with a mask LS = -1[SSCD < .5] ||(x_hat - x) m||_2, [B]; pixels in [0,1].

    mask: soft [B, h, w], resized bilinearly. normalized: divided by mean(m), since LS as written grows with the brightness of
    m, which is larger for memorized images. latent: the difference of the encoded images instead, scaled latents.
    0 where SSCD says memorized already: ties in every AUC.
    """
    if latent:
        difference = generations.extras["latent_difference"].float()
    else:
        assert generations.references is not None
        difference = generations.images.float() / 255 - generations.references.float() / 255
    if mask is not None:
        weight = resize(mask.float(), difference.shape[-2:])
        difference = difference * weight[:, None]
    norms = difference.flatten(1).norm(dim=1)
    if normalized and mask is not None:
        norms = norms / weight.flatten(1).mean(1)
    return -norms * (copy_similarity(generations) < SAME)
