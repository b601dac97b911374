"""A checkpoint => the model it holds => a diffusers folder."""

import json
import shutil
from pathlib import Path

import torch

from afterglow import models
from afterglow.models import caption_pipeline
from afterglow.models.denoiser import Denoiser


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


def export(model: Denoiser, folder: str | Path) -> Path:
    """Write a model as a diffusers folder, which opens without Afterglow; ValueError where the folder holds something already."""
    folder = Path(folder)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"'{folder}' is a file or is not empty: a model is written to a folder of its own.")
    pipeline = model.pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    if isinstance(pipeline, caption_pipeline.CaptionPipeline):
        shutil.copy(caption_pipeline.__file__, folder / "pipeline.py")
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = ["pipeline", type(pipeline).__name__]  # [file, class]: how diffusers names code in the folder
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder
