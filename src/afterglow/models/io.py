"""A checkpoint => the model it holds => a diffusers folder."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel, UNet2DModel

from afterglow import models
from afterglow.models import text_ddpm_pipeline
from afterglow.models.denoiser import Denoiser
from afterglow.models.stable_diffusion import REFUSED


def load_denoiser(path: str | Path, *, raw: bool = False) -> Denoiser:
    """The model of a checkpoint, or of the last one of a run folder, ready to generate; ValueError where there is none.

    Args:
        path: of the checkpoint or the run folder.
        raw: the weights as they were trained; otherwise their average, where the training kept one.
    """
    file = Path(path) / "checkpoints" / "last.ckpt" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"There is no checkpoint '{file}'.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no checkpoint makes the unpickler raise a dozen kinds
        raise ValueError(f"'{file}' is no checkpoint: it cannot be read, or holds more than tensors and plain values.") from error
    name = checkpoint.get("denoiser", "") if isinstance(checkpoint, dict) else ""
    cls = getattr(models, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, Denoiser)):
        raise ValueError(f"'{file}' is no checkpoint of a model of afterglow.models; it says that it holds '{name}'.")
    # LightningCLI adds keys of its own, which begin with an underscore
    model = cls(**{key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")})
    state = checkpoint.get("current_model_state") if raw else None  # only there where the weights were averaged
    model.load_state_dict(checkpoint["state_dict"] if state is None else state)
    return model.eval()


OPTIMAL = "optimal:"


def open_model(source: str | Path) -> Denoiser:
    """A model to look into: a run folder or checkpoint of ours, or a diffusers folder or hub id, ready to generate.

    'optimal:RUN' is the closed-form optimal denoiser of what that run is trained on.

    Raises ValueError where there is none, or its pipeline is of a kind that Afterglow does not open.
    """
    model = _open(source)
    model.origin = str(source)
    return model


def _open(source: str | Path) -> Denoiser:
    if str(source).startswith(OPTIMAL):
        return models.OptimalDenoiser.of_run(Path(str(source).removeprefix(OPTIMAL))).eval()
    path = Path(source)
    if path.suffix == ".ckpt" or (path / "checkpoints").is_dir():
        return load_denoiser(path)
    try:
        index = DiffusionPipeline.load_config(str(source))
    except OSError as error:
        raise ValueError(
            f"No model in '{source}': give a run folder, a checkpoint, a diffusers folder, or a hub id with a network."
        ) from error
    name = index["_class_name"] if isinstance(index["_class_name"], str) else index["_class_name"][-1]
    if name == text_ddpm_pipeline.TextConditionalPipeline.__name__:
        options = {"text": f"{source}/text_encoder", "tokenizer": f"{source}/tokenizer"}
        options |= {key: index[key] for key in ("text_length", "mask_padding") if key in index}
        return _around(models.TextConditionalDDPM, UNet2DConditionModel, str(source), options)
    if name in ("StableDiffusionPipeline", *REFUSED):
        return models.StableDiffusion(str(source), resolution=_resolution(str(source))).eval()
    if name in ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline"):
        return _around(models.DDPM, UNet2DModel, str(source), {})
    known = "StableDiffusionPipeline, DDPMPipeline, DDIMPipeline, PNDMPipeline or TextConditionalPipeline"
    raise ValueError(f"'{source}' is a {name}, and a {known} was expected.")


def _resolution(source: str) -> int:
    """The side of the images that a latent pipeline was made for."""
    unet, vae = _config(UNet2DConditionModel, source, "unet"), _config(AutoencoderKL, source, "vae")
    return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def _around(cls: Any, network: Any, source: str, options: dict[str, Any]) -> Denoiser:
    """A model of ours around the network and the noise schedule of a diffusers folder (or of an old, flat one)."""
    unet = _config(network, source, "unet")
    scheduler = _config(DDPMScheduler, source, "scheduler")
    known = inspect.signature(DDPMScheduler).parameters
    noise = {key: value for key, value in scheduler.items() if key in known and key != "trained_betas"}
    return cls(unet=source, resolution=unet["sample_size"], channels=unet["in_channels"], noise_scheduler=noise, **options).eval()


def _config(cls: Any, source: str, subfolder: str) -> dict[str, Any]:
    for place in (subfolder, None):
        try:
            return dict(cls.load_config(source, subfolder=place))
        except OSError as error:
            reason = error
    raise ValueError(f"'{source}' has no {subfolder}.") from reason


def export(model: Denoiser, folder: str | Path) -> Path:
    """Write a model as a diffusers folder, which opens without Afterglow; ValueError where the folder holds something already."""
    folder = Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"'{folder}' is a file or is not empty: a model is written to a folder of its own.")
    pipeline = model.pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    if isinstance(pipeline, text_ddpm_pipeline.TextConditionalPipeline):
        shutil.copy(text_ddpm_pipeline.__file__, folder / "pipeline.py")
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = ["pipeline", type(pipeline).__name__]  # [file, class]: how diffusers names code in the folder
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
