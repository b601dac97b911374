from afterglow.attention import cross_attention_layers
from afterglow.models.sd_shape import sd_shaped


def test_the_structure_is_that_of_stable_diffusion():
    model = sd_shaped(width=16, side=16)
    layers = [name.split(".transformer_blocks")[0] for name in cross_attention_layers(model.unet)]
    down = [f"down_blocks.{level}.attentions.{place}" for level in range(3) for place in range(2)]
    up = [f"up_blocks.{level}.attentions.{place}" for level in range(1, 4) for place in range(3)]
    assert layers == [*down, "mid_block.attentions.0", *up] and len(layers) == 16
    assert {model.unet.get_submodule(name).heads for name in cross_attention_layers(model.unet)} == {8}
    assert model.shape() == (4, 16, 16) and model.text.length == 77 and model.unet.config.cross_attention_dim == 768
