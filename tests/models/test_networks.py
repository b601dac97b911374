import pytest
import torch
from diffusers import PixArtTransformer2DModel, UNet2DModel

from afterglow.errors import AfterglowError
from afterglow.models.networks import build_unet, check_resolution, instantiate

PATCHES = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12}


def test_a_transformer_takes_the_size_and_channels_of_the_data():
    states = torch.empty(1, 5, 12, device="meta")
    network = build_unet(PixArtTransformer2DModel, PATCHES, (3, 8, 8), encoder_hidden_states=states)
    assert (network.config.sample_size, network.config.in_channels, network.config.out_channels) == (8, 3, 3)
    check_resolution(network, 10)
    with pytest.raises(AfterglowError, match="resolution must be a multiple of 2, .* patches, not 9"):
        check_resolution(network, 9)


def test_arguments_that_do_not_fit_are_one_sentence():
    with pytest.raises(AfterglowError, match="unet: UNet2DModel has no argument 'depth'"):
        instantiate(UNet2DModel, {"depth": 3}, "unet")
    states = torch.empty(1, 5, 12, device="meta")
    with pytest.raises(AfterglowError, match="cannot process samples of 3x8x8"):
        build_unet(PixArtTransformer2DModel, {**PATCHES, "cross_attention_dim": 24}, (3, 8, 8), encoder_hidden_states=states)
