"""Stable Diffusion v1-4's structure with all widths divided by one number, for tests, benchmarks and first contact; weights are random."""

import gzip
import importlib.util
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from afterglow.models.text_ddpm import TextConditionalDDPM

DIVISORS = (1, 2, 4, 8)  # by which the outer level still splits into 8 heads
UNET_WIDTHS, VAE_WIDTHS, TEXT_WIDTH, NORM_GROUPS = (320, 640, 1280, 1280), (128, 256, 512, 512), 768, 32
VAE_FACTOR, LATENT_CHANNELS, TEXT_LENGTH = 8, 4, 77
MULTIPLE = 64  # pixels: the autoencoder's factor and the U-Net's three halvings
# the noise schedule that Stable Diffusion v1-4 was trained with
TOKEN_SCALE, SHARPNESS = 0.1, 30.0  # standard deviation of a random encoder's token embeddings; factor of its queries and keys
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False}
VOCABULARY, NUM_MERGES = "bpe_simple_vocab_16e6.txt.gz", 48_894  # CLIP's: 49,408 tokens, less 2 x 256 letters and two special ones


def tiny_sd(width: int, side: int) -> TextConditionalDDPM:
    """Four levels, 16 text cross-attentions, 8 heads, as Stable Diffusion v1-4; `width` channels where it has 320, latents of `side`."""
    unet = {
        "block_out_channels": [width, 2 * width, 4 * width, 4 * width],
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "cross_attention_dim": TEXT_WIDTH,
    }
    text = {"hidden_size": TEXT_WIDTH, "intermediate_size": TEXT_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4}
    return TextConditionalDDPM(unet=unet, text=text, text_length=TEXT_LENGTH, resolution=side, channels=LATENT_CHANNELS).eval()


def sd_pipeline(divide: int, resolution: int, autoencoder: AutoencoderKL | None = None) -> StableDiffusionPipeline:
    """A pipeline of Stable Diffusion v1-4's structure, random but for the autoencoder that is given.

    divide: what all widths are divided by (1, 2, 4, 8); resolution: of its images. Raises ValueError for others.
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
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    scheduler = PNDMScheduler(skip_prk_steps=True, **NOISE)
    scheduler.register_to_config(clip_sample=False)  # as its published configuration says, for other schedulers made of it
    return StableDiffusionPipeline(
        vae=sd_autoencoder(divide, resolution) if autoencoder is None else autoencoder,
        text_encoder=_telling(CLIPTextModel(text)).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _telling(encoder: CLIPTextModel) -> CLIPTextModel:
    """A random encoder whose states tell captions apart in every position, pads too, as CLIP's do.

    Attention of random queries and keys is flat: 8 % of the states' variance is the caption's. Made sharp, it looks at single
    words, and 60 % is.
    """
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=TOKEN_SCALE)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight *= SHARPNESS
    return encoder


def sd_autoencoder(divide: int, resolution: int) -> AutoencoderKL:
    """The autoencoder of that structure: images => latents at an eighth of their side. Raises ValueError as sd_pipeline does."""
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
    """CLIP's own tokenizer, from the vocabulary inside the package open-clip-torch."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise ValueError("CLIP's vocabulary lies in the package open-clip-torch, which is not installed: pip install open-clip-torch.")
    with gzip.open(Path(found.origin).parent / VOCABULARY, "rt", encoding="utf-8") as lines:
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
        raise ValueError(f"Widths are divided by {', '.join(map(str, DIVISORS))}, and not by {divide}.")
    if resolution < MULTIPLE or resolution % MULTIPLE:
        raise ValueError(f"The resolution must be a multiple of {MULTIPLE} (autoencoder 8, U-Net 8), and it is {resolution}.")
