"""Text-to-image pipelines of diffusers: how each kind is opened, encodes its prompts and calls its network."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor

from afterglow.errors import AfterglowError, one_line
from afterglow.models.conditioning import TextConditioning

log = logging.getLogger(__name__)

HOW_TO_GET = (
    "give a diffusers folder, a hub id if a network is available, or make a folder elsewhere with "
    "`hf download CompVis/stable-diffusion-v1-4 --local-dir DIR` or `afterglow autoencoder`"
)
REFUSED = {
    name: f"text and pixels are one sequence in {model}, and no command reads its joint attention or T5's end token"
    for name, model in {"StableDiffusion3Pipeline": "Stable Diffusion 3", "FluxPipeline": "Flux"}.items()
}
Call = Callable[[Any, Tensor, Tensor, TextConditioning, int], Tensor]


def _call_unet(unet: Any, noisy: Tensor, timesteps: Tensor, condition: TextConditioning, _factor: int) -> Tensor:
    return unet(noisy, timesteps, condition.encoder_hidden_states).sample


def _call_xl(unet: Any, noisy: Tensor, timesteps: Tensor, condition: TextConditioning, factor: int) -> Tensor:
    """The original size, the corner of the crop and the target size, as the pipeline gives them for an image that was not cropped."""
    size = [side * factor for side in noisy.shape[-2:]]
    time_ids = torch.tensor([*size, 0, 0, *size], dtype=noisy.dtype).to(noisy.device, non_blocking=True).expand(len(noisy), -1)
    width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    assert condition.pooled is not None
    added = {"text_embeds": condition.pooled[:, :width].to(noisy.dtype), "time_ids": time_ids}
    return unet(noisy, timesteps, condition.encoder_hidden_states, added_cond_kwargs=added).sample


@dataclass(frozen=True)
class PipelineKind:
    """A class of text-to-image pipelines.

    Attributes:
        call: runs the network on x_t [B, C, h, w], timesteps int64 [B] and encoded captions; the last argument is pixels per latent.
        pooled: position of the pooled state in what `encode_prompt` returns; None without one.
        options: arguments of the pipeline's constructor beside its parts.
        upcasts: the autoencoder overflows in float16 and runs in float32 instead.
    """

    call: Call = _call_unet
    pooled: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    upcasts: bool = False


PIPELINES = {
    "StableDiffusionPipeline": PipelineKind(
        options={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "StableDiffusionXLPipeline": PipelineKind(_call_xl, pooled=2, options={"add_watermarker": False}, upcasts=True),
}


@dataclass(frozen=True)
class PipelineParts:
    """Parts of a pipeline's folder.

    Attributes:
        name: class of the pipeline.
        network: the network that denoises.
        vae: the autoencoder.
        text: text encoders and tokenizers by their names in the pipeline.
        scheduler: configuration of the scheduler.
        scheduler_class: name of its diffusers class.
        options: arguments of the pipeline's constructor beside its parts.
    """

    name: str
    network: Any
    vae: Any
    text: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    scheduler_class: str
    options: Mapping[str, Any]

    def __deepcopy__(self, memo: dict) -> "PipelineParts":
        return self  # copies of a model share what is frozen

    @property
    def encoders(self) -> list[Any]:
        """The text encoders, in their order in the pipeline."""
        return [self.text[name] for name in sorted(self.text) if name.startswith("text_encoder")]

    def build(self, network: Any, scheduler: Any) -> DiffusionPipeline:
        """The pipeline around another network and scheduler."""
        parts = {**self.text, "vae": self.vae, "unet": network, "scheduler": scheduler}
        return getattr(diffusers, self.name)(**parts, **self.options)


def open_parts(source: str) -> PipelineParts:
    """Open the parts of a pipeline's folder or hub id, safetensors only.

    Raises:
        AfterglowError: there is no pipeline, it is incomplete or damaged, or it is of another kind.
    """
    index = load_index(source, f"No Stable Diffusion in '{source}': {HOW_TO_GET}.")
    check_kind(index, source)
    if index.get("safety_checker", [None])[0] is not None:
        log.info("The safety checker of '%s' is ignored: it would turn memorized images black.", source)
    try:
        name = class_name(index)
        scheduler_class = index["scheduler"][1]
        if not (scheduler_class.endswith("Scheduler") and hasattr(diffusers, scheduler_class)):
            raise TypeError(f"no scheduler {scheduler_class}")
        # their classes are those that diffusers declares, whatever the folder says
        parameters = signature(getattr(diffusers, name)).parameters
        unet, vae = (parameters[part].annotation.from_pretrained(source, subfolder=part, use_safetensors=True) for part in ("unet", "vae"))
        text = {
            part: parameter.annotation.from_pretrained(source, subfolder=part, use_safetensors=True, trust_remote_code=False)
            for part, parameter in parameters.items()
            if part.startswith(("text_encoder", "tokenizer"))
        }
        scheduler = {key: value for key, value in DDPMScheduler.load_config(source, subfolder="scheduler").items() if key[0] != "_"}
        own = {key: index[key] for key in ("force_zeros_for_empty_prompt",) if key in index}
        return PipelineParts(name, unet, vae, text, scheduler, scheduler_class, {**PIPELINES[name].options, **own})
    except Exception as error:  # libraries raise many kinds of errors for damaged files
        raise AfterglowError(f"The Stable Diffusion in '{source}' is incomplete ({one_line(str(error), 60)}): {HOW_TO_GET}.") from error


def load_index(source: str, missing: str) -> dict[str, Any]:
    """model_index.json of a pipeline's folder or hub id; AfterglowError with the text `missing` if there is none."""
    try:
        index = DiffusionPipeline.load_config(source)
    except OSError as error:
        raise AfterglowError(missing) from error
    if not isinstance(index, dict) or not isinstance(class_name(index), str):
        raise AfterglowError(f"model_index.json of '{source}' names no pipeline.")
    return index


def class_name(index: dict[str, Any]) -> Any:
    """Name of the pipeline's class in a model_index.json, whose entry may be [file, class]."""
    name = index.get("_class_name")
    return name[-1] if isinstance(name, list) and name else name


def check_kind(index: dict[str, Any], source: str) -> None:
    """Raise AfterglowError if a model_index.json names a pipeline that cannot be opened as Stable Diffusion."""
    name = class_name(index)
    if name in REFUSED:
        raise AfterglowError(f"'{source}' is a {name}, which is not supported: {REFUSED[name]}.")
    if name not in PIPELINES:
        raise AfterglowError(f"'{source}' is a {name}; a StableDiffusionPipeline (1.x or 2.x) or StableDiffusionXLPipeline was expected.")


@contextmanager
def silent_diffusers() -> Iterator[None]:
    """A context in which diffusers logs nothing: it would print a line for each caption that is cut, and hundreds for a wrong LoRA."""
    library = logging.getLogger("diffusers")
    level = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(level)


@torch.no_grad()
def encode_prompts(pipeline: DiffusionPipeline, captions: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Captions as a pipeline of one of PIPELINES encodes its prompts; where it replaces the empty one by zeros, so is it here.

    Returns:
        States of the tokens [B, L, D], and the pooled state [B, P] or None.
    """
    kind = PIPELINES[type(pipeline).__name__]
    with silent_diffusers():
        found = pipeline.encode_prompt(list(captions), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    states, pooled = found[0], None if kind.pooled is None else found[kind.pooled]
    if pipeline.config.get("force_zeros_for_empty_prompt"):
        kept = torch.tensor([caption != "" for caption in captions]).to(device, non_blocking=True)[:, None]
        states, pooled = states * kept[..., None], None if pooled is None else pooled * kept
    return states, pooled


def tokenize(tokenizer: Any, captions: Sequence[str]) -> dict[str, Tensor]:
    """Token ids and attention mask, int64 [B, L] with the tokenizer's own L: longer captions are cut and still end in the end token."""
    length = tokenizer.model_max_length
    return dict(tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt"))
