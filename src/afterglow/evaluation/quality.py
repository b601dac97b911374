"""Image quality by encoders that the user provides: CLIP scores and features for Frechet distances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from afterglow.errors import AfterglowError
from afterglow.evaluation.embeddings import PatchTokens, with_extras
from afterglow.generations import Generations


@dataclass(frozen=True)
class Agreement:
    """An image-text encoder. name: for provenance; compute: uint8 [B, C, H, W] and B captions to cosines, [B]."""

    name: str
    compute: Callable[[Tensor, Sequence[str]], Tensor]


def clip_agreement(folder: str | Path) -> Agreement:
    """CLIP score from a `transformers` folder (Hessel et al. 2021); AfterglowError if the folder holds no model."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    if not (Path(folder) / "config.json").is_file():
        raise AfterglowError(
            f"There is no CLIP model in '{folder}' (config.json is missing): OpenAI publishes openai/clip-vit-large-patch14."
        )
    model = CLIPModel.from_pretrained(folder, use_safetensors=True).eval()
    processor, tokenizer = CLIPImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def compute(images: Tensor, captions: Sequence[str]) -> Tensor:
        rgb = [image.expand(3, -1, -1) for image in images]
        tokens = tokenizer(list(captions), padding=True, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
        output = model(pixel_values=processor(rgb, return_tensors="pt")["pixel_values"], **tokens)
        return (normalize(output.image_embeds, dim=1) * normalize(output.text_embeds, dim=1)).sum(1)

    return Agreement(Path(folder).name, compute)


def with_agreement(generations: Generations, agreement: Agreement) -> Generations:
    """Add extras['caption_agreement'], the CLIP similarity of each generation and its caption, [B]."""
    cosine = agreement.compute(generations.images, generations.caption)
    return with_extras(generations, {"caption_agreement": cosine}, {"caption_agreement": agreement.name})


def with_features(generations: Generations, features: PatchTokens) -> Generations:
    """Add extras['features'], the mean patch token of each generation, [B, D], for Frechet distances."""
    return with_extras(generations, {"features": mean_patch_tokens(features, generations.images)}, {"features": features.name})


def mean_patch_tokens(features: PatchTokens, images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to [B, D]."""
    return features.compute(images).flatten(1, 2).mean(1)
