from afterglow.attention_names import layer_sets, short_name

LAYERS = [
    f"{place}.transformer_blocks.0.attn2"
    for place in ("down_blocks.0.attentions.0", "down_blocks.0.attentions.1", "mid_block.attentions.0")
]


def test_layer_sets_are_the_authors_all_and_each_alone() -> None:
    assert short_name(LAYERS[0]) == "down_blocks.0.attentions.0"
    sets = layer_sets(LAYERS)
    assert list(sets) == ["be", "all", *(name.removesuffix(".transformer_blocks.0.attn2") for name in LAYERS)]
    assert "be" not in layer_sets(LAYERS[2:])
    assert layer_sets([]) == {}
