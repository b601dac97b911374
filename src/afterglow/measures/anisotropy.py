"""Norm and direction of the guidance on pure noise (Asthana and Belagiannis 2026, "Anisotropy of the Log-Probability")."""

from torch import Tensor

from afterglow.functional.guidance import guidance_norm
from afterglow.generations import Generations

SD_VALUES = 4 * 64 * 64  # of the latents for which the authors chose the weights of both terms
NORM_WEIGHT, COSINE_WEIGHT = 1.0, 2.0  # gamma_1 and gamma_2 in the authors' code for Stable Diffusion 1.x


def anisotropy(generations: Generations) -> Tensor:
    """1.0 ||Delta||_2 at the first step + 2.0 cos(Delta, eps_u) at low noise, [B] (docs/methods.md#anisotropy).

    The norm is brought to the number of values of Stable Diffusion's latents, since it grows with the square root of theirs.
    """
    assert generations.guidance_rms is not None
    return NORM_WEIGHT * guidance_norm(generations.guidance_rms[:1], SD_VALUES) + COSINE_WEIGHT * low_noise_cosine(generations)


def low_noise_cosine(generations: Generations) -> Tensor:
    """cos(Delta, eps_u) of pure noise at low noise, mean over pixels, [B] in [-1, 1] (docs/methods.md#anisotropy)."""
    return generations.extras["low_noise_cosine"]
