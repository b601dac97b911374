import torch

from afterglow.sampling.attention import cross_attention_layers
from afterglow.testing.tiny_sd import sd_autoencoder, sd_pipeline, tiny_sd


def test_the_structure_is_that_of_stable_diffusion():
    model = tiny_sd(width=16, side=16)
    layers = [name.split(".transformer_blocks")[0] for name in cross_attention_layers(model.unet)]
    down = [f"down_blocks.{level}.attentions.{place}" for level in range(3) for place in range(2)]
    up = [f"up_blocks.{level}.attentions.{place}" for level in range(1, 4) for place in range(3)]
    assert layers == [*down, "mid_block.attentions.0", *up] and len(layers) == 16
    assert {model.unet.get_submodule(name).heads for name in cross_attention_layers(model.unet)} == {8}
    assert model.latent_shape() == (4, 16, 16) and model.text.length == 77 and model.unet.config.cross_attention_dim == 768


def test_all_widths_are_divided_by_one_number():
    for divide in (4, 8):
        pipeline = sd_pipeline(divide, 128)
        assert list(pipeline.unet.config.block_out_channels) == [width // divide for width in (320, 640, 1280, 1280)]
        assert list(pipeline.vae.config.block_out_channels) == [width // divide for width in (128, 256, 512, 512)]
        assert pipeline.text_encoder.config.hidden_size == pipeline.unet.config.cross_attention_dim == 768 // divide
        assert pipeline.unet.config.sample_size == 16 and len(pipeline.tokenizer) == pipeline.text_encoder.config.vocab_size


def test_true_size_is_the_published_number_of_weights():
    with torch.device("meta"):
        vae = sd_autoencoder(1, 512)
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863


def test_every_position_of_the_random_text_encoder_tells_captions_apart():
    torch.manual_seed(0)
    pipeline = sd_pipeline(8, 64)
    captions = ["four leaf clover", "black scissors", "a bicycle", "atom symbol", "anatomical heart", "squared sos"]
    ids = pipeline.tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = pipeline.text_encoder(ids).last_hidden_state
    shares = states.var(0).mean(-1) / states.var((0, 2))
    assert shares[0] == 0 and shares[1:].min() > 0.3  # all begin alike
