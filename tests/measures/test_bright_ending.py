from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.attention_names import ATTENTION_COLUMNS, TOKEN_GROUPS, layer_sets
from afterglow.measures import bright_ending
from afterglow.measures.bright_ending import (
    attention_mass,
    effective_area,
    end_token_map,
    end_token_max,
    end_token_mean,
    similarity,
    sink_darkness,
    sink_darkness_mean,
    sscd_similarity,
)
from afterglow.measures.registry import available_maps, compute_measures

LENGTH = 6
GRIDS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2": 4,
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2": 4,
    "mid_block.attentions.0.transformer_blocks.0.attn2": 2,
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2": 8,
}
PROMPTS = ([101, 7, 102], [101, 102], [101, 1, 2, 3, 4, 102], [101, 1, 2, 3, 4, 5, 6, 102])  # the last one is cut to LENGTH


def column(attention, tokens, rule):
    """What a map reads of one row of attention (docs/methods.md#bright-ending), in plain Python."""
    first_eos = min(len(tokens), LENGTH) - 1
    groups = {"bos": attention[:1], "words": attention[1:first_eos], "pads": attention[first_eos + 1 :]}
    groups["end_and_pads"] = attention[first_eos:]
    if rule in groups:
        return sum(groups[rule])
    if rule in ("first_eos", "first_end"):
        return attention[first_eos]
    return attention[LENGTH - 1] if rule == "last" else sum(attention[first_eos:]) / (LENGTH - first_eos)


@pytest.fixture
def attended(make_generations):
    """Full attention {(step, layer): [B, P, L]} and the generations that keeps its end-token columns."""
    generator = torch.Generator().manual_seed(0)
    full = {
        (step, layer): torch.randn(4, grid * grid, LENGTH, generator=generator).mul(2).softmax(-1)
        for step in (0, 4)
        for layer, grid in GRIDS.items()
    }
    kept = {}
    for key, attention in full.items():
        table = [
            [[column(pixel.tolist(), PROMPTS[row], rule) for rule in ATTENTION_COLUMNS] for pixel in attention[row]] for row in range(4)
        ]
        kept[key] = torch.tensor(table).half()
    return full, make_generations(end_attention=kept)


@pytest.mark.parametrize("group", TOKEN_GROUPS)
def test_the_mass_of_a_group_is_the_mean_over_pixels_and_layers_of_its_attention(attended, group):
    full, generations = attended
    layers = list(GRIDS)[1:]
    found = attention_mass(generations, layers, group=group)
    for row, tokens in enumerate(PROMPTS):
        means = [np.mean([column(pixel.tolist(), tokens, group) for pixel in full[4, layer][row]]) for layer in layers]
        assert found[row].item() == pytest.approx(np.mean(means), rel=1e-3, abs=1e-6)
    if group == "bos":
        parts = [attention_mass(generations, layers, group=other) for other in ("words", "first_end", "pads")]
        torch.testing.assert_close(found + sum(parts), torch.ones(4), rtol=2e-3, atol=0)


@pytest.mark.parametrize("sink", ["bos", "pads"])
def test_sink_darkness_is_the_attention_to_all_other_tokens(attended, sink):
    full, generations = attended
    layer = list(GRIDS)[2]
    generations = replace(generations, provenance={"sink": sink})
    for step in (0, 4):
        soft = sink_darkness(generations, [layer], step=step)
        for row, tokens in enumerate(PROMPTS):
            others = [sum(pixel.tolist()) - column(pixel.tolist(), tokens, sink) for pixel in full[step, layer][row]]
            np.testing.assert_allclose(soft[row].flatten(), others, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(sink_darkness_mean(generations, [layer]), 1 - attention_mass(generations, [layer], group=sink))


@pytest.mark.parametrize("rule", ["first_eos", "last", "eos_and_pads"])
@pytest.mark.parametrize("step", [0, -1])
def test_the_map_is_the_mean_over_layers_of_the_attention_to_the_end_token(attended, rule, step):
    full, generations = attended
    layers = layer_sets(generations.layers)["be"]
    assert layers == [layer for layer in GRIDS if layer.startswith("down_blocks.0")] and len(layers) == 2
    found = end_token_map(generations, layers, rule=rule, step=step)
    for row, tokens in enumerate(PROMPTS):
        for y in range(4):
            for x in range(4):
                values = [column(full[step % 5, layer][row, 4 * y + x].tolist(), tokens, rule) for layer in layers]
                assert found[row, y, x].item() == pytest.approx(sum(values) / 2, rel=1e-3)


def test_the_rules_differ_exactly_where_there_are_pads(attended):
    _, generations = attended
    layers = list(GRIDS)[:1]
    eos, last, tail = (end_token_map(generations, layers, rule=rule) for rule in ("first_eos", "last", "eos_and_pads"))
    for row, tokens in enumerate(PROMPTS):
        full = len(tokens) >= LENGTH  # no pad behind the end token
        assert torch.equal(eos[row], last[row]) is full
        assert torch.equal(eos[row], tail[row]) is full


def test_layers_of_different_grids_meet_on_the_finest(attended):
    _, generations = attended
    layers = layer_sets(generations.layers)["all"]
    assert layers == list(GRIDS)
    found = end_token_map(generations, layers)
    assert found.shape == (4, 8, 8)
    expected = torch.zeros(4, 8, 8)
    for layer in layers:
        side = GRIDS[layer]
        grid = generations.end_attention[4, layer][..., 0].float().reshape(4, 1, side, side)
        expected += torch.nn.functional.interpolate(grid, size=(8, 8), mode="bilinear", align_corners=False)[:, 0] / 4
    torch.testing.assert_close(found, expected)
    # a layer that is constant everywhere adds its constant
    flat = dict(generations.end_attention) | {(4, layers[2]): torch.full((4, 4, 6), 0.25).half()}
    alone = end_token_map(generations, [layers[3]])
    with_flat = end_token_map(type(generations)(**(vars(generations) | {"end_attention": flat})), [layers[2], layers[3]])
    torch.testing.assert_close(with_flat, (alone + 0.25) / 2)


def test_the_grid_of_a_wide_image_is_wide(make_generations):
    pixels = torch.arange(32).reshape(1, 32, 1).expand(1, 32, 6).half()
    generations = make_generations(1, images=torch.zeros(1, 3, 8, 16, dtype=torch.uint8), end_attention={(4, "mid_block.attn2"): pixels})
    found = end_token_map(generations, ["mid_block.attn2"])
    assert torch.equal(found[0], torch.arange(32.0).reshape(4, 8))


def test_end_token_mean_is_the_mean_of_the_map(attended):
    full, generations = attended
    layers = list(GRIDS)[:2]
    for row, tokens in enumerate(PROMPTS):
        values = [column(pixel.tolist(), tokens, "first_eos") for layer in layers for pixel in full[4, layer][row]]
        assert end_token_mean(generations, layers)[row].item() == pytest.approx(np.mean(values), rel=1e-3)


def test_every_map_of_the_table_has_its_rule_step_and_layers(attended):
    full, generations = attended
    found = compute_measures(generations, available_maps(generations))
    for step, index in (("first", 0), ("last", 4)):
        for rule in ATTENTION_COLUMNS:
            layer = "mid_block.attentions.0.transformer_blocks.0.attn2"
            family = "token_group" if rule in TOKEN_GROUPS else "end_token"
            soft = found[f"{family}.{step}.{rule}.mid_block.attentions.0"]
            expected = [column(pixel.tolist(), PROMPTS[0], rule) for pixel in full[index, layer][0]]
            np.testing.assert_allclose(soft[0].flatten(), expected, rtol=1e-3)


def test_end_token_max_and_effective_area_describe_the_mask(make_generations):
    layer = "mid_block.attn2"
    quarter = torch.zeros(1, 64, 6)
    quarter[:, :16] = 0.5  # a binary mask of a quarter
    flat = torch.full((1, 64, 6), 0.25)
    for grid, peak, area in ((quarter, 0.5, 0.25), (flat, 0.25, 1.0)):
        generations = make_generations(1, end_attention={(4, layer): grid.half()})
        assert end_token_max(generations, [layer]).item() == peak
        assert effective_area(generations, [layer]).item() == pytest.approx(area)


def test_the_scores_follow_the_end_token_rule_that_was_asked_for(attended):
    _, generations = attended
    layers = list(GRIDS)[:2]
    for rule in ("first_eos", "last", "eos_and_pads"):
        asked = type(generations)(**(vars(generations) | {"provenance": {"end_token": rule}}))
        torch.testing.assert_close(end_token_mean(asked, layers), end_token_map(generations, layers, rule=rule).flatten(1).mean(1))


@pytest.fixture
def masked(monkeypatch):
    """`similarity` with a given end-token map."""

    def compute(generations, mask, **options):
        monkeypatch.setattr(bright_ending, "bright_ending", lambda generations, layers: mask)
        return similarity(generations, ["any"], **options)

    return compute


@pytest.fixture
def generations(make_generations):
    return make_generations(3, extras={"sscd": torch.tensor([0.2, 0.7, 0.5])})


def test_s_is_minus_the_l2_distance_where_sscd_does_not_say_memorized(generations):
    distances = np.linalg.norm((generations.images.double() - generations.references.double()).flatten(1).numpy() / 255, axis=1)
    assert similarity(generations).tolist() == pytest.approx([-distances[0], 0.0, 0.0], rel=1e-5)
    assert sscd_similarity(generations).tolist() == pytest.approx([0.2, 0.7, 0.5])


def test_the_latent_variant_takes_the_difference_of_encoded_images(make_generations, masked):
    apart = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    generations = make_generations(3, extras={"sscd": torch.tensor([0.2, 0.7, 0.1]), "latent_difference": apart})
    norms, mask = apart.flatten(1).norm(dim=1).tolist(), torch.full((3, 2, 2), 0.5)
    assert similarity(generations, latent=True).tolist() == pytest.approx([-norms[0], 0.0, -norms[2]], rel=1e-5)
    torch.testing.assert_close(masked(generations, mask, latent=True), similarity(generations, latent=True) / 2)


@pytest.mark.parametrize("side", [8, 4])
def test_ls_weights_the_difference_and_its_variant_does_not_grow_with_the_mask(generations, masked, side):
    mask = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))
    wide = torch.nn.functional.interpolate(mask[:, None], size=(8, 8), mode="bilinear", align_corners=False)[:, 0].double().numpy()
    difference = (generations.images.double() - generations.references.double())[0].numpy() / 255
    plain, normalized = masked(generations, mask), masked(generations, mask, normalized=True)
    assert plain[0].item() == pytest.approx(-np.linalg.norm(difference * wide[0]), rel=1e-5)
    assert normalized[0].item() == pytest.approx(-np.linalg.norm(difference * wide[0]) / wide[0].mean(), rel=1e-5)
    torch.testing.assert_close(masked(generations, 7 * mask), 7 * plain)
    torch.testing.assert_close(masked(generations, 7 * mask, normalized=True), normalized)
    torch.testing.assert_close(masked(generations, torch.ones_like(mask)), similarity(generations))
