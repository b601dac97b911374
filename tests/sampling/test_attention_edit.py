import pytest
import torch

from afterglow.sampling.attention import record_attention
from afterglow.sampling.attention_edit import edit_attention


@pytest.fixture(scope="module")
def model(small_captioned):
    return small_captioned()


@torch.no_grad()
def attention(model, **options):
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


def test_it_is_softmax_of_the_logits_with_the_first_one_scaled_and_others_left_out(model):
    layer = next(module for name, module in model.unet.named_modules() if name.endswith("attn2"))
    seen = {}

    def keep(name):
        return lambda _module, _inputs, output: seen.update({name: output})

    handles = [getattr(layer, name).register_forward_hook(keep(name)) for name in ("to_q", "to_k")]
    plain, _ = attention(model)
    for handle in handles:
        handle.remove()
    query, key = (seen[name].unflatten(-1, (layer.heads, -1)).transpose(1, 2) for name in ("to_q", "to_k"))
    logits = query @ key.mT * layer.scale
    torch.testing.assert_close(plain, logits.softmax(-1).mean(1))
    attended = torch.arange(8) < torch.tensor([5, 3])[:, None]
    logits[1, ..., 0] *= 1.5
    logits = logits.masked_fill(~attended[:, None, None], -torch.inf)
    found, output = attention(model, first_token=1.5, rows=slice(1, None), attended=attended)
    torch.testing.assert_close(found, logits.softmax(-1).mean(1))
    assert not torch.equal(output, attention(model)[1])


def test_at_one_with_all_tokens_the_network_says_the_same(model):
    said = model.condition(["a red circle", "dog"])
    noisy, times = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])
    with torch.no_grad():
        torch.testing.assert_close(attention(model)[1], model(noisy, times, said))


def test_a_batch_of_another_size_passes_untouched_and_no_hook_is_left(model):
    three = torch.ones(3, 8, dtype=torch.bool)
    assert torch.equal(attention(model, first_token=9.0, attended=three)[1], attention(model, attended=three)[1])
    with pytest.raises(RuntimeError, match="stop"), edit_attention(model.unet, first_token=2.0, rows=slice(None), attended=three):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
