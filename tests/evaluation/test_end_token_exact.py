"""End-token maps against a softmax written out: every head count, latent side, number of steps, prompt length and batch."""

import pytest
import torch

from afterglow.measures.bright_ending import end_token_map
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

WORDS = {1: "a", 75: " ".join(["a"] * 75), 76: " ".join(["a"] * 76), 200: " ".join(["a"] * 200)}
LENGTH = 77
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def model_with(heads, side):
    torch.manual_seed(heads)
    unet = {
        "block_out_channels": [40, 40],
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "mid_block_type": None,
        "norm_num_groups": 4,
        "attention_head_dim": heads,
    }
    return TextConditionalDDPM(unet, TEXT, text_length=LENGTH, resolution=side, channels=3).eval()


def brute_force(model, generations, captions):
    """softmax(Q K^T / sqrt(d)) at the last step, from the module's own weights, loops over images and heads."""
    (name,) = [name for name, _ in model.unet.named_modules() if name.endswith("attn2")]
    attn, seen = model.unet.get_submodule(name), []
    handle = attn.register_forward_pre_hook(
        lambda _m, args, kwargs: seen.append((args[0], kwargs["encoder_hidden_states"])), with_kwargs=True
    )
    generate(
        model, captions, generations.seed.tolist(), Sampler(steps=len(generations.timesteps)), CaptureConfig(tokens=False, end_steps=())
    )
    handle.remove()
    hidden, states = seen[-1]  # of the last step: [uncond; cond]
    found = []
    for row in range(len(captions)):
        query, key = (layer(values[len(captions) + row]) for layer, values in ((attn.to_q, hidden), (attn.to_k, states)))
        width = query.shape[-1] // attn.heads
        total = 0
        for head in range(attn.heads):
            part = slice(head * width, (head + 1) * width)
            logits = query[:, part].double() @ key[:, part].double().T / width**0.5
            weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
            ids = model.text.tokenizer(captions[row])["input_ids"]
            total = total + weights[:, min(len(ids), LENGTH) - 1]
        found.append((total / attn.heads).view(generations.images.shape[-2:]))
    return torch.stack(found).float()


CASES = [  # heads, side of the latents (32: 256 pixels, 64: 512), steps, words of the captions
    (4, 32, 5, [1]),
    (8, 32, 5, [75]),
    (20, 32, 5, [76]),
    (8, 64, 5, [200]),
    (4, 32, 50, [1]),
    (8, 32, 5, [1, 75, 76, 200] * 4),
]


@pytest.mark.parametrize(("heads", "side", "steps", "words"), CASES)
def test_the_map_is_the_softmax_averaged_over_heads(heads, side, steps, words):
    model, captions = model_with(heads, side), [WORDS[count] for count in words]
    with torch.no_grad():
        generations = generate(
            model, captions, list(range(len(captions))), Sampler(steps=steps), CaptureConfig(tokens=False, end_steps=(-1,)), batch_size=16
        )
        expected = brute_force(model, generations, captions)
    assert generations.prompt_length.tolist() == [min(count + 2, LENGTH) for count in words]
    (layer,) = generations.layers
    assert len(generations) == len(words) and model.unet.get_submodule(layer).heads == heads
    torch.testing.assert_close(end_token_map(generations, [layer]), expected, rtol=2e-3, atol=1e-6)  # kept in halves
