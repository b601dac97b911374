"""Maps that need more than one pass over the sampler leaves behind: collect made them, these functions name and orient them."""

from torch import Tensor

from afterglow.generations import Generations


def curvature_difference(generations: Generations, *, relu: bool = True, of_score: bool = False) -> Tensor:
    """-sum_c diag J(eps_c - eps_u) at the last step, [B, h, w]; relu: negative values are 0, as the authors do.

    METHODS (m), mem-curv-diff: Hutchinson's estimate over K Rademacher vectors (K in the provenance), without the factor 1/sigma.
    of_score: -sum_c diag J(s_c - s_u), the curvature of log p(x|c) - log p(x), with s = -eps / sigma: the other sign. Where a
    caption pins a pixel down, eps_c = (x - x_0) / sigma rises with it faster than eps_u does, and this one is positive.
    """
    values = generations.extras["curvature"].float() * (-1 if of_score else 1)
    return values.relu() if relu else values


def early_difference(generations: Generations, *, summed: bool) -> Tensor:
    """(eps - eps_early)^2 summed over channels, at the last step or over all steps, [B, h, w]; units of eps squared.

    METHODS (m): the model against an early checkpoint of its own run, on the model's own way through the sampler; it needs no text.
    """
    return generations.extras[f"early_difference.{'summed' if summed else 'last'}"].float()


def patch_nearness(generations: Generations) -> Tensor:
    """Minus the distance of each pixel's patch to the nearest training patch at the same place, [B, H, W]; RMS of [0,1] pixels.

    After Kamb and Ganguli (METHODS (m)): a copied region is made of patches of the training set. The plant's own are among them.
    """
    return -generations.extras["patch_distance"].float()


def self_attention_concentration(generations: Generations) -> Tensor:
    """1 - H_p / ln P of each pixel's self-attention at the last step, averaged over heads and layers, [B, h, w]; in [0, 1].

    Our own definition of the concentration named in METHODS: 1 where a pixel looks at one pixel, 0 where at all alike.
    """
    return generations.extras["self_attention"].float()


def split_product(generations: Generations, *, cross: bool = False) -> Tensor:
    """<v_c, q_c> of the patch tokens of generation and reference at each position c, [B, h, w]; cross: max_d <v_c, q_d>.

    Somepalli et al. 2023 (METHODS (m)); their score is the maximum over c. Tokens have norm 1; the encoder is in the provenance.
    """
    return generations.extras["split_product.cross" if cross else "split_product"].float()
