"""Opening models from checkpoints and diffusers folders, and exporting them."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel, UNet2DModel

from afterglow import models
from afterglow.errors import AfterglowError, reading
from afterglow.models import text_ddpm_pipeline
from afterglow.models.checkpoint import read_checkpoint
from afterglow.models.denoiser import Denoiser
from afterglow.models.networks import load_part
from afterglow.models.noise import FLOW, is_flow_config, scheduler_class
from afterglow.models.pipelines import PIPELINES, REFUSED, check_kind, class_name, load_index
from afterglow.planting.io import check_empty

OPTIMAL = "optimal:"
STATE_PREFIX = "model."  # of the Denoiser inside the LightningModule that trained it


def load_denoiser(path: str | Path, *, raw: bool = False) -> Denoiser:
    """Load the model of a checkpoint, ready to generate.

    Args:
        path: a checkpoint, or a run folder, of which the last checkpoint is taken.
        raw: load the weights of the last step instead of their average, if the training kept one.

    Raises:
        AfterglowError: there is no checkpoint of one of our models, or it is damaged.
    """
    file = Path(path) / "checkpoints" / "last.ckpt" if Path(path).is_dir() else Path(path)
    checkpoint = read_checkpoint(file)
    saved = checkpoint.get("denoiser")
    name = saved.get("name") if isinstance(saved, dict) else saved
    cls = getattr(models, str(name), None)
    if not (isinstance(saved, dict) and isinstance(cls, type) and issubclass(cls, Denoiser)):
        raise AfterglowError(f"'{file}' is not a checkpoint of a model in afterglow.models (model: {name}).")
    with reading(file, f"a checkpoint of {name}"):
        model = cls(**saved["init_args"])
        state = checkpoint.get("current_model_state") if raw else None  # present only if the weights were averaged
        state = checkpoint["state_dict"] if state is None else state
        model.load_state_dict({key.removeprefix(STATE_PREFIX): value for key, value in state.items()})
    return model.eval()


def open_model(source: str | Path, *, lora: str | Path | None = None) -> Denoiser:
    """Open a model, ready to generate.

    Args:
        source: run folder, checkpoint, diffusers folder or hub id; 'optimal:RUN' is the closed-form optimal denoiser of the set
            that a run was trained on.
        lora: file with low-rank updates of a Stable Diffusion model, which are merged into its weights.

    Raises:
        AfterglowError: there is no model, it is damaged, or its pipeline is of a kind that Afterglow does not open.
    """
    model = _open(source)
    if lora is not None:
        if not isinstance(model, models.StableDiffusion):
            raise AfterglowError(f"A LoRA is merged into Stable Diffusion, and '{source}' is a {type(model).__name__}.")
        model.merge_lora(Path(lora))
    model.name_or_path = str(source if lora is None else lora)
    return model


def _open(source: str | Path) -> Denoiser:
    if str(source).startswith(OPTIMAL):
        return models.OptimalDenoiser.of_run(Path(str(source).removeprefix(OPTIMAL))).eval()
    path = Path(source)
    if path.suffix == ".ckpt" or (path / "checkpoints").is_dir():
        return load_denoiser(path)
    expected = "a run folder, a checkpoint, a diffusers folder, or a hub id if a network is available"
    index = load_index(str(source), f"No model in '{source}': give {expected}.")
    name = class_name(index)
    if name == text_ddpm_pipeline.TextConditionalPipeline.__name__:
        options = {"text": f"{source}/text_encoder", "tokenizer": f"{source}/tokenizer"}
        options |= {key: index[key] for key in ("text_length", "mask_padding") if key in index}
        network = index["unet"][1] if index.get("unet", [None])[0] == "diffusers" else "UNet2DConditionModel"
        return _open_network(models.TextConditionalDDPM, getattr(diffusers, network), str(source), options | {"network": network})
    if name in (*PIPELINES, *REFUSED):
        check_kind(index, str(source))
        return models.StableDiffusion(str(source), resolution=_image_resolution(str(source))).eval()
    if name in ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline"):
        return _open_network(models.DDPM, UNet2DModel, str(source), {})
    known = ", ".join([*PIPELINES, "DDPMPipeline", "DDIMPipeline", "PNDMPipeline or TextConditionalPipeline"])
    raise AfterglowError(f"'{source}' is a {name}; a {known} was expected.")


def _image_resolution(source: str) -> int:
    """Width and height of the images of a latent pipeline."""
    unet, vae = load_part(UNet2DConditionModel.load_config, source, "unet"), load_part(AutoencoderKL.load_config, source, "vae")
    with reading(source, "a latent pipeline"):
        return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def _open_network(cls: Any, network: Any, source: str, options: dict[str, Any]) -> Denoiser:
    """A model around the network and the noise schedule of a diffusers folder (or of an old, flat one)."""
    unet, scheduler = load_part(network.load_config, source, "unet"), load_part(DDPMScheduler.load_config, source, "scheduler")
    with reading(source, f"a folder of {cls.__name__}"):
        known = {"prediction_type": None, **inspect.signature(scheduler_class(scheduler)).parameters}
        noise = {key: value for key, value in scheduler.items() if key in known and key != "trained_betas"}
        if is_flow_config(scheduler):
            noise["prediction_type"] = FLOW
        return cls(unet=source, resolution=unet["sample_size"], channels=unet["in_channels"], noise_scheduler=noise, **options).eval()


def export(model: Denoiser, folder: str | Path) -> Path:
    """Write a model to a new or empty folder as a diffusers pipeline, which opens without Afterglow; returns the folder.

    Raises:
        AfterglowError: the folder holds something already.
    """
    folder = Path(folder)
    check_empty(folder)
    pipeline = model.pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    if isinstance(pipeline, text_ddpm_pipeline.TextConditionalPipeline):
        shutil.copy(text_ddpm_pipeline.__file__, folder / "pipeline.py")
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = ["pipeline", type(pipeline).__name__]  # [file, class]: how diffusers names code in the folder
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
