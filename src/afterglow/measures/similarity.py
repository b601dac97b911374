"""Similarity of a generation and its training picture: SSCD, S and LS (Chen et al. 2025, METHODS (a) and (f))."""

from torch import Tensor

from afterglow.evidence import Evidence
from afterglow.measures.guidance import resize

SAME = 0.5  # SSCD cosine from which the authors call a generation memorized


def copy_similarity(evidence: Evidence) -> Tensor:
    """SSCD cosine of a generation and its reference, [B]; model and preprocessing stand in the provenance."""
    return evidence.derived["sscd"]


def similarity(evidence: Evidence, mask: Tensor | None = None, *, normalised: bool = False, latent: bool = False) -> Tensor:
    """S = -1[SSCD < .5] ||x_hat - x||_2, and with a mask LS = -1[SSCD < .5] ||(x_hat - x) m||_2, [B]; pixels in [0,1].

    mask: soft [B, h, w], resized bilinearly. normalised: divided by mean(m), since LS as written grows with the brightness of
    m, which is larger for memorized pictures. latent: the difference of the encoded pictures instead, scaled latents.
    0 where SSCD says memorized already: ties in every AUC.
    """
    if latent:
        difference = evidence.derived["latent_difference"].float()
    else:
        assert evidence.references is not None
        difference = evidence.images.float() / 255 - evidence.references.float() / 255
    if mask is not None:
        weight = resize(mask.float(), difference.shape[-2:])
        difference = difference * weight[:, None]
    norms = difference.flatten(1).norm(dim=1)
    if normalised and mask is not None:
        norms = norms / weight.flatten(1).mean(1)
    return -norms * (copy_similarity(evidence) < SAME)
