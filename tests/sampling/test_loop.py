import diffusers
import pytest
import torch

from afterglow.errors import DivergedError
from afterglow.models.text_encoder import PACKAGED
from afterglow.sampling.attention import cross_attention_layers, record_attention
from afterglow.sampling.guidance import delta_norm, guidance_delta
from afterglow.sampling.loop import Sampler, generate, initial_delta_norm, sample_steps
from afterglow.sampling.recorder import CaptureConfig, sink_group

CAPTIONS = ["a red circle", "", "a very long caption with many more words than there is room for in it", "dog"]
SEEDS = [0, 1, 2, 1]
LENGTH = 8
TRAILING = Sampler(steps=5)
ANCESTRAL = Sampler("DDPMScheduler", steps=5, options={})


@pytest.fixture(scope="module")
def caption_model(small_captioned):
    """An untrained caption says next to nothing; this model's is heard."""

    def make(prediction="epsilon", mask_padding=False, text=None):
        model = small_captioned(text, mask_padding=mask_padding, noise_scheduler={"prediction_type": prediction})
        for name, parameter in model.named_parameters():
            if "attn2" in name:
                parameter.data *= 4
        return model

    return make


@pytest.fixture(scope="module")
def model(caption_model):
    return caption_model()


@pytest.fixture(scope="module")
def captured(model):
    return generate(model, CAPTIONS, SEEDS, TRAILING)


@torch.no_grad()
def plain_loop(model, caption, seed, sampler):
    """One image as in any tutorial, two passes a step. Returns it and the steps (t, noisy, cond, uncond)."""
    cls = getattr(diffusers, sampler.scheduler)
    scheduler = cls.from_config(model.scheduler.config, **sampler.options)
    scheduler.set_timesteps(sampler.steps)
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn((1, 3, 8, 8), generator=generator)
    states, empty = (model.condition([text]) for text in (caption, "")) if model.has_text else (None, None)
    steps, masked = [], getattr(model, "mask_padding", False)
    for timestep in scheduler.timesteps:
        if model.has_text:
            cond, uncond = (
                model.unet(
                    sample, timestep, said.encoder_hidden_states, encoder_attention_mask=said.attention_mask if masked else None
                ).sample
                for said in (states, empty)
            )
            output = uncond + sampler.guidance_scale * (cond - uncond)
        else:
            output, cond, uncond = model.unet(sample, timestep).sample, None, None
        steps.append((int(timestep), sample, cond, uncond))
        sample = scheduler.step(output, timestep, sample, generator=generator).prev_sample
    return ((sample[0] / 2 + 0.5).clamp(0, 1) * 255).round(), steps


def gray_levels(a, b):
    return (a.float() - b.float()).abs().max().item()


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_images_are_those_of_a_plain_loop(caption_model, name, scale, prediction):
    model = caption_model(prediction)
    sampler = Sampler(name, steps=5, guidance_scale=scale, options={"timestep_spacing": "trailing"})
    found = generate(model, CAPTIONS, SEEDS, sampler)
    for row, (caption, seed) in enumerate(zip(CAPTIONS, SEEDS, strict=True)):
        image, steps = plain_loop(model, caption, seed, sampler)
        assert gray_levels(found.images[row], image) <= 1
        assert found.timesteps.tolist() == [timestep for timestep, *_ in steps]
    assert found.timesteps[0] == 999  # trailing: it begins at pure noise


def test_guidance_moves_the_images(model):
    found = [generate(model, CAPTIONS, SEEDS, Sampler(steps=5, guidance_scale=scale)).images for scale in (1.0, 3.0)]
    assert gray_levels(found[0][0], found[1][0]) > 1
    assert gray_levels(found[0][1], found[1][1]) <= 1  # the empty caption has nothing to be guided by


@pytest.mark.parametrize("sampler", [TRAILING, ANCESTRAL])
def test_a_model_without_text(small_plain, sampler):
    model = small_plain()
    found = generate(model, ["ignored", ""], [3, 4], sampler)
    for row, seed in enumerate((3, 4)):
        assert gray_levels(found.images[row], plain_loop(model, "", seed, sampler)[0]) <= 1
    for name in ("guidance", "guidance_rms", "token_attention", "end_attention", "prompt_length"):
        assert getattr(found, name) is None, name
    assert found.provenance["layers"] == []
    assert gray_levels(generate(model, ["other", "words"], [3, 4], sampler).images, found.images) == 0


@pytest.mark.parametrize("sampler", [TRAILING, ANCESTRAL])
def test_images_do_not_depend_on_batch_size(model, sampler):
    whole, single, uneven = (generate(model, CAPTIONS, SEEDS, sampler, batch_size=size) for size in (64, 1, 3))
    for other in (single, uneven):
        assert gray_levels(whole.images, other.images) <= 1
        assert other.caption == whole.caption and other.seed.tolist() == whole.seed.tolist()
        torch.testing.assert_close(other.guidance_rms, whole.guidance_rms, rtol=1e-3, atol=1e-6)
        assert other.token_attention.shape == whole.token_attention.shape


@pytest.mark.parametrize("sampler", [TRAILING, ANCESTRAL])
def test_looking_inside_changes_no_bit(model, sampler):
    nothing = CaptureConfig(guidance=False, tokens=False, end_steps=())
    bare = generate(model, CAPTIONS, SEEDS, sampler, nothing)
    assert torch.equal(bare.images, generate(model, CAPTIONS, SEEDS, sampler).images)
    for name in ("guidance", "guidance_rms", "token_attention", "end_attention"):
        assert getattr(bare, name) is None, name


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_delta_is_the_difference_of_two_separate_predictions_of_the_noise(caption_model, prediction, scale):
    model = caption_model(prediction)
    sampler = Sampler(steps=5, guidance_scale=scale)
    found = generate(model, CAPTIONS, SEEDS, sampler)
    delta = found.guidance.float() * found.guidance_rms[..., None, None, None]
    for row in (0, 2, 3):
        for index, (timestep, noisy, *outputs) in enumerate(plain_loop(model, CAPTIONS[row], SEEDS[row], sampler)[1]):
            alpha_bar = model.scheduler.alphas_cumprod[timestep]
            if prediction == "v_prediction":  # x = sqrt(a) x0 + sqrt(1-a) eps and v = sqrt(a) eps - sqrt(1-a) x0
                outputs = [alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * noisy for v in outputs]
            expected = (outputs[0] - outputs[1])[0]
            size = expected.square().mean().sqrt()
            assert size > 1e-3  # there is something to compare
            assert found.guidance_rms[index, row].item() == pytest.approx(size.item(), rel=2e-3)
            assert (delta[index, row] - expected).abs().max() < 5e-3 * expected.abs().max() + 1e-5


def test_the_empty_caption_differs_from_itself_by_nothing(captured):
    assert captured.guidance_rms[:, 1].max() < 1e-5 * captured.guidance_rms[:, 0].min() + 1e-6
    assert captured.guidance.isfinite().all()


def test_shapes_of_the_generations(model, captured):
    layers = cross_attention_layers(model.unet)
    assert len(layers) == 4  # one down, the middle, two up
    assert captured.images.shape == (4, 3, 8, 8) and captured.images.dtype == torch.uint8
    assert captured.guidance.shape == (5, 4, 3, 8, 8) and captured.guidance.dtype == torch.float16
    assert captured.guidance_rms.shape == (5, 4) and captured.guidance_rms.dtype == torch.float32
    assert captured.token_attention.shape == (5, 4, 4, LENGTH) and captured.token_attention.dtype == torch.float16
    assert set(captured.end_attention) == {(step, layer) for step in (0, 4) for layer in layers}
    assert captured.layers == layers == captured.provenance["layers"]
    assert {layer: tuple(captured.end_attention[4, layer].shape) for layer in layers} == {
        layer: (4, 16 if "mid" in layer else 64, 6) for layer in layers
    }


def test_delta_is_kept_with_unit_root_mean_square(captured):
    sizes = captured.guidance[:, [0, 2, 3]].float().square().flatten(2).mean(2).sqrt()
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=1e-3, atol=0)


def test_attention_over_tokens_sums_to_one(captured):
    sums = captured.token_attention.float().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=2e-3, atol=0)


@torch.no_grad()
def attention_at(model, noisy, timestep, caption):
    """Full attention {layer: [P, L]} of one conditional pass."""
    said = model.condition([caption])
    with record_attention(model.unet) as maps:
        model(noisy, torch.tensor([timestep]), said)
    return {name: attention[0] for name, attention in maps.items()}


@pytest.mark.parametrize("mask_padding", [False, True])
def test_attention_is_that_of_the_conditional_half_before_each_step(caption_model, mask_padding):
    model = caption_model(mask_padding=mask_padding)
    found = generate(model, CAPTIONS, SEEDS, TRAILING)
    for row, caption in enumerate(CAPTIONS):
        tokens = model.text.tokenizer.encode(caption)
        first_eos = min(len(tokens), LENGTH) - 1
        assert found.prompt_length[row] == first_eos + 1
        steps = plain_loop(model, caption, SEEDS[row], TRAILING)[1]
        for index, (timestep, noisy, *_) in enumerate(steps):
            for number, (layer, attention) in enumerate(attention_at(model, noisy, timestep, caption).items()):
                torch.testing.assert_close(found.token_attention[index, row, number].float(), attention.mean(0), rtol=5e-3, atol=2e-4)
                if index in (0, 4):
                    tail = [attention[:, position] for position in range(first_eos, LENGTH)]
                    rules = [attention[:, first_eos], attention[:, LENGTH - 1], sum(tail) / len(tail)]
                    groups = [attention[:, 0], attention[:, 1:first_eos].sum(1), attention[:, first_eos + 1 :].sum(1)]
                    columns = torch.stack([*rules, *groups], dim=-1)
                    torch.testing.assert_close(found.end_attention[index, layer][row].float(), columns, rtol=5e-3, atol=2e-4)
    lengths = found.prompt_length.tolist()
    assert lengths[1] == 2 and lengths[2] == LENGTH and lengths[0] == 5  # [CLS] [SEP]; cut; three words
    if mask_padding:
        assert found.token_attention[:, 0, :, 5:].max() == 0


def test_the_sink_is_bos_where_no_caption_reaches_it_and_the_padding_otherwise(caption_model):
    causal, bidirectional = caption_model(), caption_model(text=PACKAGED)
    states = [model.condition(["a red hat", "b"]).encoder_hidden_states[:, 0] for model in (causal, bidirectional)]
    assert torch.equal(*states[0]) and not torch.allclose(*states[1], atol=1e-2)
    masked = caption_model(text=PACKAGED, mask_padding=True)  # nothing attends to the padding
    for captions in (["a red hat", ""], ["", "b"], ["", ""]):
        found = [sink_group(model, TRAILING.setup(model, captions, [0, 1])) for model in (causal, bidirectional, masked)]
        assert found == ["bos", "pads", "bos"]
    assert generate(causal, ["b"], [0], TRAILING, CaptureConfig(tokens=False)).provenance["sink"] == "bos"
    assert generate(causal, ["b"], [0], TRAILING, CaptureConfig(tokens=False, end_steps=())).provenance["sink"] is None


def test_chosen_steps_and_layers_only(model):
    layers = cross_attention_layers(model.unet)
    chosen = CaptureConfig(guidance=False, tokens=False, end_steps=(-1, 2), end_layers=("mid_block", "up_blocks"))
    found = generate(model, CAPTIONS, SEEDS, TRAILING, chosen)
    assert set(found.end_attention) == {(step, layer) for step in (2, 4) for layer in layers[1:]}
    assert found.token_attention is None and found.guidance is None
    both = generate(model, CAPTIONS, SEEDS, TRAILING, CaptureConfig(end_layers=("mid_block",)))
    assert both.layers == layers[1:2] and both.token_attention.shape[2] == 4
    assert torch.equal(both.end_attention[4, layers[1]], found.end_attention[4, layers[1]])


def test_provenance_says_how(model, captured):
    about = captured.provenance
    assert about["scheduler"] == "DDIMScheduler" and about["steps"] == 5 and about["guidance_scale"] == 1.0
    assert about["scheduler_options"] == {"timestep_spacing": "trailing"} and about["pads_masked"] is False
    assert about["versions"]["diffusers"] == diffusers.__version__


def test_no_hook_and_no_gradient_is_left(model, captured):
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not captured.images.requires_grad and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("arguments", [{"scheduler": "NoScheduler"}, {"scheduler": "UNet2DModel"}, {"steps": 0}])
def test_a_sampler_that_cannot_be_is_refused(arguments):
    (value,) = arguments.values()
    with pytest.raises(ValueError, match=str(value)):
        Sampler(**arguments)


@torch.no_grad()
def test_sample_steps_does_what_generate_does(model):
    sampler = Sampler(steps=6, guidance_scale=2.0)
    generations = generate(model, CAPTIONS, SEEDS, sampler)
    steps = list(sample_steps(model, sampler.setup(model, CAPTIONS, SEEDS)))
    assert [outputs.timestep for outputs, _ in steps] == generations.timesteps.tolist()
    assert [outputs.index for outputs, _ in steps] == list(range(6))
    pixels = ((steps[-1][1] / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (pixels - generations.images.float()).abs().max() <= 1
    norms = torch.stack([delta_norm(guidance_delta(model, o.uncond, o.cond, o.noisy, o.timestep)) for o, _ in steps])
    expected = generations.guidance_rms * generations.guidance[0, 0].numel() ** 0.5
    torch.testing.assert_close(norms[:, [0, 2, 3]], expected[:, [0, 2, 3]], rtol=1e-4, atol=0)
    first = initial_delta_norm(model, sampler.setup(model, CAPTIONS, SEEDS))
    torch.testing.assert_close(first[[0, 2, 3]], expected[0, [0, 2, 3]], rtol=1e-4, atol=0)


def test_generations_that_are_not_finite_raise(small_plain):
    model = small_plain()
    next(model.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="DDPM generated images that are not finite"):
        generate(model, [""], [0], TRAILING, CaptureConfig(tokens=False, end_steps=()))


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 4), (3.0, 8)])
def test_the_unconditional_half_is_computed_only_where_something_needs_it(model, scale, rows):
    sampler, sizes = Sampler(steps=2, guidance_scale=scale), []
    both = generate(model, CAPTIONS, SEEDS, sampler)
    handle = model.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    few = generate(model, CAPTIONS, SEEDS, sampler, CaptureConfig(guidance=False))
    handle.remove()
    assert sizes == [rows, rows] and few.guidance is None and few.provenance["sink"] == both.provenance["sink"]
    assert gray_levels(few.images, both.images) <= 1 and torch.equal(few.prompt_length, both.prompt_length)
    torch.testing.assert_close(few.token_attention, both.token_attention, rtol=0, atol=2e-3)
    for place, maps in both.end_attention.items():
        torch.testing.assert_close(few.end_attention[place], maps, rtol=0, atol=2e-3)
