"""Random models with the structure of Stable Diffusion v1-4 and XL and smaller widths, for tests, benchmarks and a first try."""

import copy
import gzip
import importlib.util
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from afterglow.errors import AfterglowError
from afterglow.models.text_ddpm import TextConditionalDDPM

DIVISORS = (1, 2, 4, 8)  # of the widths, for which the outermost level still splits into 8 heads
UNET_WIDTHS, VAE_WIDTHS, TEXT_WIDTH, NORM_GROUPS = (320, 640, 1280, 1280), (128, 256, 512, 512), 768, 32
BIG_TEXT_WIDTH, TIME_WIDTH = 1280, 256  # of Stable Diffusion XL: its second text encoder, and each number of the image's size
VAE_FACTOR, LATENT_CHANNELS, TEXT_LENGTH = 8, 4, 77
RESOLUTION_MULTIPLE = 64  # pixels: the autoencoder's factor and the U-Net's three halvings
TOKEN_SCALE, SHARPNESS = 0.1, 30.0  # standard deviation of a random encoder's token embeddings; factor of its queries and keys
# the noise schedule with which Stable Diffusion v1-4 was trained
NOISE_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False}
VOCABULARY, NUM_MERGES = "bpe_simple_vocab_16e6.txt.gz", 48_894  # CLIP's: 49,408 tokens, less 2 x 256 letters and two special ones


def tiny_sd(width: int, side: int) -> TextConditionalDDPM:
    """A text-conditional DDPM with four levels, 16 cross-attention modules and 8 heads, as Stable Diffusion v1-4.

    Args:
        width: channels of the outermost level, where Stable Diffusion has 320.
        side: height and width of the samples.
    """
    unet = {
        "block_out_channels": [width, 2 * width, 4 * width, 4 * width],
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "cross_attention_dim": TEXT_WIDTH,
    }
    text = {"hidden_size": TEXT_WIDTH, "intermediate_size": TEXT_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4}
    return TextConditionalDDPM(unet=unet, text=text, text_length=TEXT_LENGTH, resolution=side, channels=LATENT_CHANNELS).eval()


def sd_pipeline(divide: int, resolution: int, autoencoder: AutoencoderKL | None = None) -> StableDiffusionPipeline:
    """A pipeline with the structure of Stable Diffusion v1-4 and random weights.

    Args:
        divide: divisor of all widths: 1, 2, 4 or 8.
        resolution: side of the images in pixels, a multiple of 64.
        autoencoder: replaces the random one.

    Raises:
        AfterglowError: a divisor or resolution is not supported, or open-clip-torch is missing.
    """
    _check(divide, resolution)
    tokenizer = clip_tokenizer()
    width = TEXT_WIDTH // divide
    unet = UNet2DConditionModel(
        sample_size=resolution // VAE_FACTOR,
        block_out_channels=tuple(value // divide for value in UNET_WIDTHS),
        attention_head_dim=8,  # diffusers' old name for the number of heads
        norm_num_groups=NORM_GROUPS // divide,
        cross_attention_dim=width,
    )
    scheduler = PNDMScheduler(skip_prk_steps=True, **NOISE_SCHEDULE)
    scheduler.register_to_config(clip_sample=False)  # as its published configuration says, for other schedulers made of it
    return StableDiffusionPipeline(
        vae=sd_autoencoder(divide, resolution) if autoencoder is None else autoencoder,
        text_encoder=_text_encoder(CLIPTextModel, tokenizer, width, 12),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(divide: int, resolution: int, depth: int = 1) -> StableDiffusionXLPipeline:
    """A pipeline with the structure of Stable Diffusion XL and random weights.

    Arguments and errors as for `sd_pipeline`; depth: divisor of the numbers of transformer layers, of which at least one stays.
    """
    _check(divide, resolution)
    first = clip_tokenizer()
    second = copy.deepcopy(first)
    second.pad_token = "!"  # the second encoder's padding
    widths = TEXT_WIDTH // divide, BIG_TEXT_WIDTH // divide
    unet = UNet2DConditionModel(
        sample_size=resolution // VAE_FACTOR,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(value // divide for value in UNET_WIDTHS[:3]),
        transformer_layers_per_block=[max(1, layers // depth) for layers in (1, 2, 10)],
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        norm_num_groups=NORM_GROUPS // divide,
        cross_attention_dim=sum(widths),
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=widths[1] + 6 * TIME_WIDTH,  # the pooled state and six numbers of the size
    )
    return StableDiffusionXLPipeline(
        vae=sd_autoencoder(divide, resolution),
        text_encoder=_text_encoder(CLIPTextModel, first, widths[0], 12 // depth),
        text_encoder_2=_text_encoder(CLIPTextModelWithProjection, second, widths[1], 32 // depth, heads=20, hidden_act="gelu"),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**{name: value for name, value in NOISE_SCHEDULE.items() if name != "set_alpha_to_one"}),
        add_watermarker=False,
    )


def _text_encoder(cls: Any, tokenizer: CLIPTokenizer, width: int, layers: int, heads: int = 12, **options: Any) -> Any:
    """A random text encoder of CLIP's architecture."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
    return _sharpen_attention(cls(config)).eval()


def _sharpen_attention(encoder: Any) -> Any:
    """Make the states of a random encoder depend on the caption at every position, pads included, as CLIP's do.

    Attention with random queries and keys is flat: 8 % of the variance of the states is explained by the caption. Sharpened
    attention reads single words, and the caption explains 60 %.
    """
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=TOKEN_SCALE)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight *= SHARPNESS
    return encoder


def sd_autoencoder(divide: int, resolution: int) -> AutoencoderKL:
    """The autoencoder of `sd_pipeline`, random: images => latents at an eighth of their side. Arguments and errors as there."""
    _check(divide, resolution)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=tuple(width // divide for width in VAE_WIDTHS),
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=NORM_GROUPS // divide,
        sample_size=resolution,
    )


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, from the vocabulary in the package open-clip-torch."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise AfterglowError("CLIP's vocabulary is in the package open-clip-torch, which is not installed: pip install open-clip-torch.")
    with gzip.open(Path(package.origin).parent / VOCABULARY, "rt", encoding="utf-8") as lines:
        merges = lines.read().split("\n")[1 : NUM_MERGES + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens = [*words, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(merge.split()) for merge in merges],
        model_max_length=TEXT_LENGTH,
    )


def _check(divide: int, resolution: int) -> None:
    if divide not in DIVISORS:
        raise AfterglowError(f"The width divisor must be one of {', '.join(map(str, DIVISORS))}, not {divide}.")
    if resolution < RESOLUTION_MULTIPLE or resolution % RESOLUTION_MULTIPLE:
        raise AfterglowError(f"The resolution must be a multiple of {RESOLUTION_MULTIPLE} (autoencoder 8, U-Net 8), not {resolution}.")
