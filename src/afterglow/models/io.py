"""Opening models from checkpoints and diffusers folders, and exporting them."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel, UNet2DModel

from afterglow import models
from afterglow.errors import AfterglowError
from afterglow.models import text_ddpm_pipeline
from afterglow.models.checkpoint import read_checkpoint
from afterglow.models.denoiser import Denoiser
from afterglow.models.stable_diffusion import REFUSED, class_name

OPTIMAL = "optimal:"
STATE_PREFIX = "model."  # of the Denoiser inside the LightningModule that trained it


def load_denoiser(path: str | Path, *, raw: bool = False) -> Denoiser:
    """Load the model of a checkpoint.

    Args:
        path: a checkpoint, or a run folder, of which the last checkpoint is taken.
        raw: load the weights of the last step instead of their average, if the training kept one.

    Returns:
        The model, ready to generate.

    Raises:
        AfterglowError: if there is no checkpoint of one of our models.
    """
    file = Path(path) / "checkpoints" / "last.ckpt" if Path(path).is_dir() else Path(path)
    checkpoint = read_checkpoint(file)
    saved = checkpoint.get("denoiser")
    name = saved.get("name") if isinstance(saved, dict) else saved
    cls = getattr(models, str(name), None)
    if not (isinstance(saved, dict) and isinstance(cls, type) and issubclass(cls, Denoiser)):
        raise AfterglowError(f"'{file}' is not a checkpoint of a model in afterglow.models (model: {name}).")
    model = cls(**saved["init_args"])
    state = checkpoint.get("current_model_state") if raw else None  # present only if the weights were averaged
    state = checkpoint["state_dict"] if state is None else state
    model.load_state_dict({key.removeprefix(STATE_PREFIX): value for key, value in state.items()})
    return model.eval()


def open_model(source: str | Path) -> Denoiser:
    """Open a model for sampling and measuring.

    Args:
        source: run folder, checkpoint, diffusers folder or hub id; 'optimal:RUN' is the closed-form optimal denoiser of the set
            that a run was trained on.

    Returns:
        The model, ready to generate.

    Raises:
        AfterglowError: if there is no model, or its pipeline is of a kind that Afterglow does not open.
    """
    model = _open(source)
    model.name_or_path = str(source)
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
        raise AfterglowError(
            f"No model in '{source}': give a run folder, a checkpoint, a diffusers folder, or a hub id if a network is available."
        ) from error
    name = class_name(index)
    if name == text_ddpm_pipeline.TextConditionalPipeline.__name__:
        options = {"text": f"{source}/text_encoder", "tokenizer": f"{source}/tokenizer"}
        options |= {key: index[key] for key in ("text_length", "mask_padding") if key in index}
        return _open_network(models.TextConditionalDDPM, UNet2DConditionModel, str(source), options)
    if name in ("StableDiffusionPipeline", *REFUSED):
        return models.StableDiffusion(str(source), resolution=_image_resolution(str(source))).eval()
    if name in ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline"):
        return _open_network(models.DDPM, UNet2DModel, str(source), {})
    known = "StableDiffusionPipeline, DDPMPipeline, DDIMPipeline, PNDMPipeline or TextConditionalPipeline"
    raise AfterglowError(f"'{source}' is a {name}; a {known} was expected.")


def _image_resolution(source: str) -> int:
    """Width and height of the images of a latent pipeline."""
    unet, vae = _config(UNet2DConditionModel, source, "unet"), _config(AutoencoderKL, source, "vae")
    return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def _open_network(cls: Any, network: Any, source: str, options: dict[str, Any]) -> Denoiser:
    """A model around the network and the noise schedule of a diffusers folder (or of an old, flat one)."""
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
    raise AfterglowError(f"'{source}' has no {subfolder}.") from reason


def export(model: Denoiser, folder: str | Path) -> Path:
    """Write a model as a diffusers folder, which opens without Afterglow.

    Args:
        model: the model.
        folder: a folder that does not exist or is empty.

    Returns:
        The folder.

    Raises:
        AfterglowError: if the folder holds something already.
    """
    folder = Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise AfterglowError(f"'{folder}' is a file or is not empty: export to a new folder.")
    pipeline = model.pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    if isinstance(pipeline, text_ddpm_pipeline.TextConditionalPipeline):
        shutil.copy(text_ddpm_pipeline.__file__, folder / "pipeline.py")
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = ["pipeline", type(pipeline).__name__]  # [file, class]: how diffusers names code in the folder
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
