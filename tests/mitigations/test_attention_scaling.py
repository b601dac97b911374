import torch

from afterglow.attention import cross_attention_layers, record
from afterglow.collect import Capture, Sampler, generate
from afterglow.mitigations.attention_scaling import AttentionScaling
from afterglow.mitigations.passes import first_step, halves_at


@torch.no_grad()
def both_maps(model, course, remedy):
    first, changed = first_step(model, course), remedy(model, course)
    with changed.edit(), record(model.unet) as maps:
        halves_at(model, course.condition, first.noisy, first.timestep)
    return maps


def test_rows_sum_to_one_and_pads_get_nothing_in_both_halves(heard, course):
    lengths = course.condition.prompt_length[course.half].tolist()
    assert max(lengths) < 8
    maps = both_maps(heard, course, AttentionScaling())
    assert set(maps) == set(cross_attention_layers(heard.unet))
    for attention in maps.values():
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))
        for row, length in enumerate(lengths * 2):
            assert (attention[row, :, length:] == 0).all() and (attention[row, :, :length] > 0).all()
    with_end = both_maps(heard, course, AttentionScaling(end_too=True))
    assert all((attention[0, :, lengths[0] - 1 :] == 0).all() for attention in with_end.values())


def test_the_begin_tokens_logit_is_scaled_in_the_conditional_half_alone(heard, course):
    plain, scaled = (both_maps(heard, course, AttentionScaling(c1, pads=0.0)) for c1 in (1.0, 1.5))
    layer = next(iter(plain))  # its queries do not depend on other layers' attention
    torch.testing.assert_close(plain[layer][:3], scaled[layer][:3])
    heads = heard.unet.get_submodule(layer).heads
    assert not torch.allclose(plain[layer][3:], scaled[layer][3:]) and heads >= 1
    ratio = scaled[layer][3:, :, 2:] / scaled[layer][3:, :, 1:2]
    if heads == 1:
        torch.testing.assert_close(ratio, plain[layer][3:, :, 2:] / plain[layer][3:, :, 1:2])


def test_a_share_of_the_pads_is_counted_from_the_last(heard, course):
    lengths = course.condition.prompt_length[course.half].tolist()
    maps = both_maps(heard, course, AttentionScaling(1.0, pads=0.5))
    kept = lengths[0] + round((8 - lengths[0]) / 2)
    attention = next(iter(maps.values()))[0]
    assert (attention[:, kept:] == 0).all() and (attention[:, :kept] > 0).all()


def test_recorded_attention_is_the_edited_one_and_no_hook_is_left(heard):
    found = generate(heard, ["dog"], [0], Sampler(steps=2), Capture(), remedy=AttentionScaling())
    length = int(found.prompt_length[0])
    assert (found.token_attention[:, 0, :, length:] == 0).all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in heard.modules())
