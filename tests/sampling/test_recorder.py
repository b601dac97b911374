import pytest
import torch

from afterglow.sampling.attention import self_attention_layers
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

WITH_ATTENTION = {
    "down_block_types": ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"],
    "attention_head_dim": 4,
}


def slow_concentration(model, noisy, timestep, condition):
    """Queries and keys of every self-attention, gathered by hand; softmax head by head; entropy of the mean over heads."""
    seen, handles = {}, []
    for name in self_attention_layers(model.unet):
        attn = model.unet.get_submodule(name)
        for what in ("to_q", "to_k"):
            keep = lambda _m, _i, output, key=(name, what): seen.__setitem__(key, output)  # noqa: E731
            handles.append(getattr(attn, what).register_forward_hook(keep))
    with torch.no_grad():
        model(noisy, torch.full((len(noisy),), timestep), condition)
    for handle in handles:
        handle.remove()
    grids = []
    for name in self_attention_layers(model.unet):
        heads = model.unet.get_submodule(name).heads
        query, key = (seen[name, what].unflatten(-1, (heads, -1)).transpose(1, 2) for what in ("to_q", "to_k"))
        shares = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).mean(1)
        entropy = torch.distributions.Categorical(probs=shares).entropy()
        side = int(shares.shape[1] ** 0.5)
        grid = (1 - entropy / torch.log(torch.tensor(float(shares.shape[1])))).view(-1, 1, side, side)
        grids.append(torch.nn.functional.interpolate(grid, size=(8, 8), mode="bilinear", align_corners=False)[:, 0])
    return torch.stack(grids).mean(0)


@pytest.mark.parametrize("text", [True, False])
def test_self_attention_is_recorded_at_the_last_step_and_leaves_no_trace(text, small_captioned, small_plain):
    model = small_captioned() if text else small_plain(WITH_ATTENTION)
    captions, seeds, sampler = ["a red circle", "b"], [0, 1], Sampler(steps=3)
    untouched = generate(model, captions, seeds, sampler, CaptureConfig())
    found = generate(model, captions, seeds, sampler, CaptureConfig(extras=["self_attention"]))
    assert torch.equal(found.images, untouched.images) and "self_attention" not in untouched.extras
    assert not any(module._forward_hooks for module in model.unet.modules())
    condition = model.condition(captions)
    sample = torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    scheduler = sampler.build(model.scheduler)
    with torch.no_grad():
        for t in scheduler.timesteps[:-1]:
            sample = scheduler.step(model(sample, t.expand(2), condition), t, sample).prev_sample
    expected = slow_concentration(model, sample, int(scheduler.timesteps[-1]), condition)
    assert len(self_attention_layers(model.unet)) >= 3 and expected.std() > 0
    torch.testing.assert_close(found.extras["self_attention"], expected, rtol=1e-3, atol=1e-4)
    assert found.provenance["self_attention_layers"] == self_attention_layers(model.unet)


def test_self_attention_leaves_out_layers_of_one_position(small_plain):
    """Four levels halve 8 pixels to one, where the entropy and its maximum are 0."""
    blocks = {
        "block_out_channels": [8] * 4,
        "down_block_types": [*["DownBlock2D"] * 2, "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D"] * 4,
        "attention_head_dim": 4,
    }
    capture, call = CaptureConfig(extras=["self_attention"]), ([""], [0], Sampler(steps=2))
    found = generate(small_plain(blocks), *call, capture).extras["self_attention"]
    assert found.shape == (1, 2, 2) and found.isfinite().all()
    with pytest.raises(ValueError, match="all layers of UNet2DModel have one position"):
        generate(small_plain(blocks | {"down_block_types": ["DownBlock2D"] * 4}), *call, capture)


def test_a_network_without_self_attention_is_refused(small_plain):
    model = small_plain({"mid_block_type": None})
    with pytest.raises(ValueError, match="UNet2DModel has no self-attention"):
        generate(model, [""], [0], Sampler(steps=2), CaptureConfig(extras=["self_attention"]))


def test_jacobian_products_run_through_a_real_network_beside_a_finite_difference(small_captioned):
    """Fused attention has no forward derivative; the pass that needs it takes another kernel, the images do not."""
    model = small_captioned()
    sampler = Sampler(steps=2)
    found = generate(model, ["a red circle"], [0], sampler, CaptureConfig(extras=["sharpness", "curvature"], curvature_vectors=1))
    plain_pass = generate(model, ["a red circle"], [0], sampler, CaptureConfig())
    assert torch.equal(found.images, plain_pass.images)
    noise = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))[None]
    t = int(found.timesteps[0])
    both = torch.cat([model.condition([""]).encoder_hidden_states, model.condition(["a red circle"]).encoder_hidden_states])

    def delta(x):
        uncond, cond = model.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        return cond - uncond

    with torch.no_grad():
        direction, size = delta(noise), 0.05
        product = (delta(noise + size * direction) - delta(noise - size * direction)) / (2 * size)
    variance = 1 - model.scheduler.alphas_cumprod[t].item()
    assert found.extras["sharpness"].item() == pytest.approx(product.norm().item() / variance, rel=2e-2)
