"""Room 2: what is learned, and how a batch becomes a loss."""

from afterglow.models.averaging import RampedAverage
from afterglow.models.caption import CaptionDDPM
from afterglow.models.ddpm import DDPM
from afterglow.models.denoiser import Condition, Denoiser
from afterglow.models.load import export, load_denoiser, open_model
from afterglow.models.optimal import OptimalDenoiser
from afterglow.models.stable_diffusion import StableDiffusion

__all__ = [
    "DDPM",
    "CaptionDDPM",
    "Condition",
    "Denoiser",
    "OptimalDenoiser",
    "RampedAverage",
    "StableDiffusion",
    "export",
    "load_denoiser",
    "open_model",
]
