from contextlib import nullcontext

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import nn

from afterglow.sampling.attention import cross_attention_layers, edit_attention, record_attention

TOKENS = 7


def small_unet(heads=4):
    """Stable Diffusion's shape in small: text attention in two of three levels and in the middle, 7 layers."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=heads,  # the number of heads, whatever it is called
        cross_attention_dim=12,
        norm_num_groups=4,
    )
    for parameter in unet.parameters():  # sharper attention than at the start of a training
        parameter.data *= 1.5
    return unet


def inputs(batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, 8, 8, generator=generator), torch.tensor(500), torch.randn(batch, TOKENS, 12, generator=generator)


def padded(batch=2):
    """The last tokens of each row may not be attended to."""
    return torch.arange(TOKENS) < torch.tensor([3, 5, 7, 4])[:batch, None]


def hooks(network):
    return [
        hook
        for module in network.modules()
        for kept in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        for hook in kept.values()
    ]


def full_softmax(unet, *args, **kwargs):
    """{layer: attention of all heads [B, H, P, L]}, by diffusers' own explicit softmax on what goes into each module."""
    caught, handles = {}, []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):

            def catch(attn, positional, named, name=name):
                mask = named.get("attention_mask")
                caught[name] = (attn, positional[0].detach(), named["encoder_hidden_states"].detach(), mask)

            handles.append(module.register_forward_pre_hook(catch, with_kwargs=True))
    unet(*args, **kwargs)
    for handle in handles:
        handle.remove()
    found = {}
    with torch.no_grad():
        for name, (attn, pixels, text, mask) in caught.items():
            query, key = attn.head_to_batch_dim(attn.to_q(pixels)), attn.head_to_batch_dim(attn.to_k(text))
            mask = attn.prepare_attention_mask(mask, TOKENS, len(pixels))
            found[name] = attn.get_attention_scores(query, key, mask).unflatten(0, (len(pixels), attn.heads))
    return found


@pytest.mark.parametrize("heads", [1, 4, 8])
@pytest.mark.parametrize("mask", [None, padded()])
def test_maps_are_the_full_softmax_averaged_over_heads(heads, mask):
    unet = small_unet(heads)
    expected = full_softmax(unet, *inputs(), encoder_attention_mask=mask)
    with record_attention(unet) as maps:
        unet(*inputs(), encoder_attention_mask=mask)
    assert len(maps) == 7 and set(maps) == set(expected)
    for name, attention in maps.items():
        assert expected[name].shape[1] == heads
        torch.testing.assert_close(attention, expected[name].mean(1), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))
    if mask is not None:
        assert all((attention.mean(1)[~mask] < 1e-12).all() for attention in maps.values())


def test_layers_run_from_down_to_middle_to_up():
    unet = small_unet()
    names = cross_attention_layers(unet)
    assert [name.split(".transformer_blocks")[0] for name in names] == [
        "down_blocks.0.attentions.0",
        "down_blocks.1.attentions.0",
        "mid_block.attentions.0",
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
        "up_blocks.2.attentions.0",
        "up_blocks.2.attentions.1",
    ]
    with record_attention(unet) as maps:
        unet(*inputs())
    assert list(maps) == names
    assert [attention.shape[1] for attention in maps.values()] == [64, 16, 4, 16, 16, 64, 64]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mask", [None, padded()])
def test_recording_changes_no_bit_of_output_or_gradient(checkpointing, mask):
    results = []
    for recording in (False, True):
        unet = small_unet().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with record_attention(unet) if recording else nullcontext():
            output = unet(*inputs(), encoder_attention_mask=mask).sample
            output.square().mean().backward()
        results.append([output.detach(), *(parameter.grad for parameter in unet.parameters())])
    assert results[0][1].shape == (8, 4, 3, 3) and results[0][1].abs().sum() > 0  # of the first convolution
    for without, with_record in zip(*results, strict=True):
        assert (without is None and with_record is None) or torch.equal(without, with_record)


def test_under_gradient_checkpointing_each_layer_has_one_map_and_the_same():
    expected = {name: attention.mean(1) for name, attention in full_softmax(small_unet(), *inputs()).items()}
    unet = small_unet().train()
    unet.enable_gradient_checkpointing()
    calls = []
    with record_attention(unet, reduce=lambda attention: calls.append(1) or attention) as maps:
        unet(*inputs()).sample.sum().backward()
    assert len(calls) > 7  # the blocks did run twice
    assert set(maps) == set(expected)
    for name, attention in maps.items():
        assert not attention.requires_grad
        torch.testing.assert_close(attention, expected[name], rtol=1e-5, atol=1e-7)


def test_rows_are_a_half_of_the_batch():
    unet, mask = small_unet(), padded(4)
    noisy, time, text = inputs(4)
    with record_attention(unet) as whole:
        unet(noisy, time, text, encoder_attention_mask=mask)
    with record_attention(unet, rows=slice(2, None)) as half:
        unet(noisy, time, text, encoder_attention_mask=mask)
    for name in whole:
        assert half[name].shape[0] == 2
        torch.testing.assert_close(half[name], whole[name][2:])
        assert not torch.allclose(half[name], whole[name][:2], atol=1e-4)


def test_reduce_and_the_choice_of_layers():
    unet = small_unet()
    with record_attention(unet) as whole:
        unet(*inputs())
    with record_attention(unet, lambda attention: attention[..., 2], prefixes=["down_blocks.0"]) as maps:
        unet(*inputs())
    assert list(maps) == cross_attention_layers(unet)[:1]
    (name,) = maps
    assert torch.equal(maps[name], whole[name][..., 2])


def test_each_pass_overwrites_the_one_before():
    unet = small_unet()
    with record_attention(unet) as once:
        unet(*inputs(seed=2))
    with record_attention(unet) as maps:
        unet(*inputs(seed=1))
        unet(*inputs(seed=2))
    assert len(maps) == 7 and all(torch.equal(maps[name], once[name]) for name in maps)


def test_no_hook_is_left_behind():
    unet = small_unet()
    assert hooks(unet) == []
    with record_attention(unet) as maps:
        assert len(hooks(unet)) > 0
        unet(*inputs())
    assert hooks(unet) == []
    before = {name: attention.clone() for name, attention in maps.items()}
    unet(*inputs(seed=5))  # outside of the block nothing is recorded
    assert all(torch.equal(maps[name], before[name]) for name in maps)


def test_no_hook_is_left_behind_by_an_exception():
    unet = small_unet()
    with pytest.raises(RuntimeError, match="in the block"), record_attention(unet):
        raise RuntimeError("in the block")
    assert hooks(unet) == []
    with pytest.raises(RuntimeError, match="in reduce"), record_attention(unet, fail):
        unet(*inputs())
    assert hooks(unet) == []


def fail(_attention):
    raise RuntimeError("in reduce")


def test_a_network_without_text_is_refused():
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=4, **blocks)
    with pytest.raises(ValueError, match="UNet2DModel has no text cross-attention"), record_attention(unet):
        pass
    assert hooks(unet) == []


def test_a_choice_of_no_layer_is_refused_and_the_layers_named():
    with (
        pytest.raises(ValueError, match="mid_block.attentions.0"),
        record_attention(small_unet(), prefixes=["nowhere"]),
    ):
        pass


class OneLayer(nn.Module):
    """A network with one text attention, whose queries and keys the test sets."""

    def __init__(self, dim_head=64, **options):
        super().__init__()
        torch.manual_seed(0)
        attention = Attention(query_dim=dim_head, cross_attention_dim=dim_head, heads=2, dim_head=dim_head, **options)
        self.down_blocks = nn.ModuleDict({"attn2": attention})

    def forward(self, pixels, text):
        return self.down_blocks["attn2"](pixels, encoder_hidden_states=text)


def attention_of(attn, query, key):
    """softmax(Q K^T / sqrt(D)) averaged over heads, in float64, one head at a time."""
    size = query.shape[-1] // attn.heads
    heads = [slice(head * size, (head + 1) * size) for head in range(attn.heads)]
    each = [(query[..., head].double() @ key[..., head].double().transpose(1, 2) / size**0.5).softmax(-1) for head in heads]
    return (sum(each) / attn.heads).float()


def recorded_and_projected(network, pixels, text):
    """The recorded map, and the queries and keys as the network made them."""
    seen, attn = {}, network.down_blocks["attn2"]
    handles = [
        getattr(attn, name).register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
        for name in ("to_q", "to_k")
    ]
    with torch.no_grad(), record_attention(network) as maps:
        network(pixels, text)
    for handle in handles:
        handle.remove()
    return maps["down_blocks.attn2"], seen["to_q"], seen["to_k"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [3.0, 300.0])  # 300: products beyond the range of halves, as in Stable Diffusion 2
def test_half_precision_networks_are_recorded_in_float32(dtype, size):
    network = OneLayer().to(dtype)
    generator = torch.Generator().manual_seed(1)
    pixels, text = (torch.randn(2, count, 64, generator=generator).mul(size).to(dtype) for count in (9, TOKENS))
    found, query, key = recorded_and_projected(network, pixels, text)
    assert query.dtype == dtype and found.dtype == torch.float32
    torch.testing.assert_close(found, attention_of(network.down_blocks["attn2"], query, key), rtol=1e-4, atol=1e-5)


def test_autocast_does_not_reach_the_record():
    network = OneLayer()
    generator = torch.Generator().manual_seed(1)
    pixels, text = (torch.randn(2, count, 64, generator=generator).mul(5) for count in (9, TOKENS))
    with torch.autocast("cpu", torch.bfloat16):
        found, query, key = recorded_and_projected(network, pixels, text)
    assert query.dtype == torch.bfloat16
    torch.testing.assert_close(found, attention_of(network.down_blocks["attn2"], query, key), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_normalized_queries_and_keys(autocast):
    network = OneLayer(dim_head=16, qk_norm="layer_norm").eval()
    attn = network.down_blocks["attn2"]
    for norm in (attn.norm_q, attn.norm_k):
        norm.weight.data = torch.rand(16) * 3
    pixels, text = torch.randn(2, 9, 16), torch.randn(2, TOKENS, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, query, key = recorded_and_projected(network, pixels, text)

    def normalized(values, norm):
        return norm(values.float().unflatten(-1, (2, 16))).flatten(2).detach()

    expected = attention_of(attn, normalized(query, attn.norm_q), normalized(key, attn.norm_k))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2 if autocast else 1e-6)


@pytest.fixture(scope="module")
def model(small_captioned):
    return small_captioned()


@torch.no_grad()
def edited_attention(model, **options):
    """The first layer's attention of two rows, averaged over heads by hand from the projections of one forward pass."""
    said = model.condition(["a red circle", "dog"])
    noisy, times = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])
    whole = torch.ones(2, 8, dtype=torch.bool)
    with (
        edit_attention(model.unet, **({"first_token": 1.0, "rows": slice(None), "attended": whole} | options)),
        record_attention(model.unet) as maps,
    ):
        output = model(noisy, times, said)
    return next(iter(maps.values())), output


def test_edit_attention_scales_the_first_logit_and_masks_tokens(model):
    layer = next(module for name, module in model.unet.named_modules() if name.endswith("attn2"))
    seen = {}

    def keep(name):
        return lambda _module, _inputs, output: seen.update({name: output})

    handles = [getattr(layer, name).register_forward_hook(keep(name)) for name in ("to_q", "to_k")]
    plain, _ = edited_attention(model)
    for handle in handles:
        handle.remove()
    query, key = (seen[name].unflatten(-1, (layer.heads, -1)).transpose(1, 2) for name in ("to_q", "to_k"))
    logits = query @ key.mT * layer.scale
    torch.testing.assert_close(plain, logits.softmax(-1).mean(1))
    attended = torch.arange(8) < torch.tensor([5, 3])[:, None]
    logits[1, ..., 0] *= 1.5
    logits = logits.masked_fill(~attended[:, None, None], -torch.inf)
    found, output = edited_attention(model, first_token=1.5, rows=slice(1, None), attended=attended)
    torch.testing.assert_close(found, logits.softmax(-1).mean(1))
    assert not torch.equal(output, edited_attention(model)[1])


def test_edit_attention_at_factor_one_with_all_tokens_changes_nothing(model):
    said = model.condition(["a red circle", "dog"])
    noisy, times = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])
    with torch.no_grad():
        torch.testing.assert_close(edited_attention(model)[1], model(noisy, times, said))


def test_edit_attention_ignores_batches_of_another_size_and_removes_its_hooks(model):
    three = torch.ones(3, 8, dtype=torch.bool)
    assert torch.equal(edited_attention(model, first_token=9.0, attended=three)[1], edited_attention(model, attended=three)[1])
    with pytest.raises(RuntimeError, match="stop"), edit_attention(model.unet, first_token=2.0, rows=slice(None), attended=three):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
