import torch

from afterglow.mitigations.inference.attention_scaling import AttentionScaling
from afterglow.sampling.attention import cross_attention_layers, record_attention
from afterglow.sampling.guidance import predict_both
from afterglow.sampling.loop import Sampler, generate, initial_input
from afterglow.sampling.recorder import CaptureConfig


@torch.no_grad()
def both_maps(model, setup, mitigation):
    (noisy, timestep), changed = initial_input(model, setup), mitigation(model, setup)
    with changed.attention_context(), record_attention(model.unet) as maps:
        predict_both(model, setup.condition, noisy, timestep)
    return maps


def test_rows_sum_to_one_and_pads_get_nothing_in_both_halves(heard, setup):
    lengths = setup.condition.prompt_length[setup.cond_slice].tolist()
    assert max(lengths) < 8
    maps = both_maps(heard, setup, AttentionScaling())
    assert set(maps) == set(cross_attention_layers(heard.unet))
    for attention in maps.values():
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))
        for row, length in enumerate(lengths * 2):
            assert (attention[row, :, length:] == 0).all() and (attention[row, :, :length] > 0).all()


def test_the_begin_tokens_logit_is_scaled_in_the_conditional_half_alone(heard, setup):
    plain, scaled = (both_maps(heard, setup, AttentionScaling(c1, padding=0.0)) for c1 in (1.0, 1.5))
    layer = next(iter(plain))  # its queries do not depend on other layers' attention
    torch.testing.assert_close(plain[layer][:3], scaled[layer][:3])
    heads = heard.unet.get_submodule(layer).heads
    assert not torch.allclose(plain[layer][3:], scaled[layer][3:]) and heads >= 1
    ratio = scaled[layer][3:, :, 2:] / scaled[layer][3:, :, 1:2]
    if heads == 1:
        torch.testing.assert_close(ratio, plain[layer][3:, :, 2:] / plain[layer][3:, :, 1:2])


def test_a_share_of_the_pads_is_counted_from_the_last(heard, setup):
    lengths = setup.condition.prompt_length[setup.cond_slice].tolist()
    maps = both_maps(heard, setup, AttentionScaling(1.0, padding=0.5))
    kept = lengths[0] + round((8 - lengths[0]) / 2)
    attention = next(iter(maps.values()))[0]
    assert (attention[:, kept:] == 0).all() and (attention[:, :kept] > 0).all()


def test_recorded_attention_is_the_edited_one_and_no_hook_is_left(heard):
    found = generate(heard, ["dog"], [0], Sampler(steps=2), CaptureConfig(), mitigation=AttentionScaling())
    length = int(found.prompt_length[0])
    assert (found.token_attention[:, 0, :, length:] == 0).all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in heard.modules())
