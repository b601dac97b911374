"""Names of token groups, of rules for the end token, and of sets of attention layers."""

from collections.abc import Sequence

TOKEN_GROUPS = ("bos", "words", "first_end", "pads", "end_and_pads")
END_TOKEN_RULES = ("first_eos", "last", "eos_and_pads")
ATTENTION_COLUMNS = (*END_TOKEN_RULES, "bos", "words", "pads")  # the columns of end_attention: mean over the pads of a rule, sum of a group
FIRST_BLOCKS = ("down_blocks.", "transformer_blocks.0.")


def short_name(layer: str) -> str:
    """'up_blocks.1.attentions.0.transformer_blocks.0.attn2' => 'up_blocks.1.attentions.0'."""
    return layer.split(".transformer_blocks")[0].removesuffix(".attn2")


def first_block(layers: Sequence[str]) -> str:
    """Prefix of the layers of the first block that attends to text, a down block or transformer block 0; "" if it is another one.

    docs/methods.md#attention-capture

    >>> first_block(["down_blocks.1.attentions.0.transformer_blocks.0.attn2", "mid_block.attentions.0.transformer_blocks.0.attn2"])
    'down_blocks.1.'
    """
    return ".".join([*layers[0].split(".")[:2], ""]) if layers and layers[0].startswith(FIRST_BLOCKS) else ""


def layer_sets(layers: list[str]) -> dict[str, list[str]]:
    """Named sets of layers: those of the first block that attends to text (be), all, and the layers of each module in it by themselves."""
    sets: dict[str, list[str]] = {}
    for layer in layers:  # a module of Stable Diffusion has one layer, one of Stable Diffusion XL up to ten
        sets.setdefault(short_name(layer), []).append(layer)
    first = first_block(layers)
    named = {"be": [layer for layer in layers if first and layer.startswith(first)], "all": list(layers), **sets}
    return {name: members for name, members in named.items() if members}
