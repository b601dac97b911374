"""A network with Stable Diffusion's block structure at any width, for benchmarks and first contact; its weights are random."""

from afterglow.models.caption import CaptionDDPM


def sd_shaped(width: int, side: int) -> CaptionDDPM:
    """Four levels, 16 text cross-attentions, 8 heads, as Stable Diffusion v1-4; `width` channels where it has 320, latents of `side`."""
    unet = {
        "block_out_channels": [width, 2 * width, 4 * width, 4 * width],
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "cross_attention_dim": 768,
    }
    text = {"hidden_size": 768, "intermediate_size": 768, "num_hidden_layers": 1, "num_attention_heads": 4}
    return CaptionDDPM(unet=unet, text=text, text_length=77, resolution=side, channels=4).eval()
