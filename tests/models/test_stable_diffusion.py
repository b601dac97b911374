"""On Stable Diffusion v1-4's own structure at an eighth of its width, loaded through the real loading code."""

import json
import logging
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import get_peft_model_state_dict

from afterglow.attention_names import layer_sets
from afterglow.measures.bright_ending import bright_ending
from afterglow.models.io import export, open_model
from afterglow.models.stable_diffusion import StableDiffusion
from afterglow.planting.dataset import Batch
from afterglow.sampling.attention import cross_attention_layers
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

CAPTIONS = ["a red house by the sea", " ".join(["word"] * 100)]
SEEDS = [3, 8]


@pytest.fixture(scope="module")
def model(sd_folder: Path) -> StableDiffusion:
    return open_model(sd_folder)


def batch_of(pixels: torch.Tensor, first: int = 0) -> Batch:
    count = len(pixels)
    return Batch(pixels, ("a cup",) * count, ("control",) * count, torch.arange(first, first + count))


def plain_ddim(folder: Path, steps: int, guidance: float = 7.5) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.scheduler.set_timesteps(steps)
    return pipeline


def test_the_folder_has_the_structure_of_v1_4(model):
    layers = [name.split(".transformer_blocks")[0] for name in cross_attention_layers(model.unet)]
    assert len(layers) == 16 and {model.unet.get_submodule(name).heads for name in cross_attention_layers(model.unet)} == {8}
    assert model.latent_shape() == (4, 8, 8) and model.image_shape() == (3, 64, 64) and model.vae_scale_factor == 8
    assert len(model.tokenizer) == 49408 and model.tokenizer(CAPTIONS[0])["input_ids"][:3] == [49406, 320, 736]
    assert not any(parameter.requires_grad for parameter in model.vae.parameters()) and "vae" not in str(list(model.state_dict()))


def test_the_end_token_map_is_the_papers(model, sd_folder):
    """METHODS (a), written out: last of 50 DDIM steps at t = 1, two layers, conditional half, means over heads and layers, first EOS."""
    generations = generate(
        model, CAPTIONS, SEEDS, Sampler(steps=50, guidance_scale=7.5, options={}), CaptureConfig(tokens=False, end_steps=(-1,))
    )
    found = bright_ending(generations, layer_sets(generations.layers)["be"])
    pipeline, maps = plain_ddim(sd_folder, 50), []
    assert pipeline.scheduler.timesteps[-1] == 1 and generations.timesteps[-1] == 1
    for place in (0, 1):
        attention = pipeline.unet.down_blocks[0].attentions[place].transformer_blocks[0].attn2

        def look(module, args, kwargs):
            hidden, states = args[0][2:], kwargs["encoder_hidden_states"][2:]  # [uncond; cond]
            query, key = (layer(value).unflatten(-1, (8, -1)) for layer, value in ((module.to_q, hidden), (module.to_k, states)))
            weights = torch.einsum("nphd,nkhd->nhpk", query, key).div(query.shape[-1] ** 0.5).softmax(-1)
            maps.append(weights.mean(1))

        attention.register_forward_pre_hook(look, with_kwargs=True)
    pipeline(CAPTIONS, num_inference_steps=50, generator=[torch.Generator().manual_seed(seed) for seed in SEEDS], output_type="latent")
    last = (maps[-2] + maps[-1]) / 2
    for row, caption in enumerate(CAPTIONS):
        end = min(len(pipeline.tokenizer.encode(caption)), 77) - 1
        assert end == (7, 76)[row]
        torch.testing.assert_close(found[row].float(), last[row, :, end].view(8, 8), rtol=1e-3, atol=1e-5)


def test_magnitude_is_that_of_a_plain_loop(model, sd_folder):
    generations = generate(
        model, CAPTIONS, SEEDS, Sampler(steps=6, guidance_scale=7.5, options={}), CaptureConfig(tokens=False, end_steps=())
    )
    found = generations.guidance_rms * generations.guidance[0, 0].numel() ** 0.5
    pipeline = plain_ddim(sd_folder, 6)
    latents = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    cond, uncond = pipeline.encode_prompt(CAPTIONS, "cpu", 1, True)
    for number, timestep in enumerate(pipeline.scheduler.timesteps):
        with torch.no_grad():
            output = pipeline.unet(torch.cat([latents] * 2), timestep, torch.cat([uncond, cond])).sample
        delta = output[2:] - output[:2]
        torch.testing.assert_close(found[number], delta.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-5)
        latents = pipeline.scheduler.step(output[:2] + 7.5 * delta, timestep, latents).prev_sample


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_an_export_gives_the_pixels_of_our_sampler(scheduler, prediction, sd_folder, tmp_path):
    model = StableDiffusion(str(sd_folder), resolution=64, noise_scheduler={"prediction_type": prediction}).eval()
    ours = generate(model, CAPTIONS, SEEDS, Sampler(scheduler, 4, 7.5, {}), CaptureConfig(False, False, ())).images
    pipeline = StableDiffusionPipeline.from_pretrained(export(model, tmp_path / "out"))
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    assert pipeline.scheduler.config.prediction_type == prediction
    theirs = pipeline(
        CAPTIONS, num_inference_steps=4, generator=[torch.Generator().manual_seed(seed) for seed in SEEDS], output_type="np"
    ).images
    assert (np.abs((theirs * 255).round().transpose(0, 3, 1, 2) - ours.numpy()) <= 1).all()


def test_other_sizes_and_head_counts(sd_folder, tmp_path):
    """Stable Diffusion 2 has 5, 10, 20 and 20 heads; 256 pixels on a model made for 64."""
    shutil.copytree(sd_folder, tmp_path / "sd2")
    unet = diffusers.UNet2DConditionModel.from_pretrained(sd_folder, subfolder="unet")
    diffusers.UNet2DConditionModel.from_config({**unet.config, "attention_head_dim": [5, 10, 20, 20]}).save_pretrained(
        tmp_path / "sd2" / "unet"
    )
    model = StableDiffusion(str(tmp_path / "sd2"), resolution=256).eval()
    generations = generate(model, CAPTIONS[:1], [0], Sampler(steps=1, options={}))
    assert generations.images.shape == (1, 3, 256, 256) and bright_ending(generations, layer_sets(generations.layers)["be"]).shape == (
        1,
        32,
        32,
    )


def test_each_sample_draws_from_its_posterior_by_its_number(model):
    pixels = torch.rand(1, 3, 64, 64).expand(3, -1, -1, -1) * 2 - 1
    draws, same, later = model.target_x0(batch_of(pixels)), model.target_x0(batch_of(pixels)), model.target_x0(batch_of(pixels, first=1))
    assert torch.equal(draws, same) and torch.equal(draws[1:], later[:2]) and not torch.equal(draws[0], draws[1])
    mean, log_variance = model.posterior_moments(pixels[:1]).chunk(2, dim=1)
    many = model.target_x0(batch_of(pixels[:1].expand(400, -1, -1, -1)))
    torch.testing.assert_close(many.mean(0), mean[0] * model.scaling_factor, atol=0.05, rtol=0.1)
    torch.testing.assert_close(many.std(0), (log_variance[0] / 2).exp() * model.scaling_factor, atol=0.02, rtol=0.2)
    assert torch.equal(model.encode(pixels[:1]), mean * model.scaling_factor)


def test_low_rank_updates_are_all_that_is_trained_and_kept(sd_folder, tmp_path):
    torch.manual_seed(0)
    model = StableDiffusion(str(sd_folder), resolution=64, lora=2)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained) and sorted(trained) == sorted(model.state_dict())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    again = StableDiffusion(str(sd_folder), resolution=64, lora=2)
    again.load_state_dict(model.state_dict())
    sampler = Sampler(steps=2, options={})
    plain, updated = (generate(one.eval(), CAPTIONS[:1], [0], sampler).images for one in (open_model(sd_folder), again))
    assert (plain != updated).any()
    exported = generate(open_model(export(model, tmp_path / "out")), CAPTIONS[:1], [0], sampler).images
    assert (exported.int() - updated.int()).abs().max() <= 1  # merged weights round otherwise
    assert model.unet.peft_config  # the export has left the model as it was
    layers = get_peft_model_state_dict(model.unet)
    StableDiffusionPipeline.save_lora_weights(str(tmp_path), unet_lora_layers=layers, weight_name="mine.safetensors")
    wide = {name: torch.cat([tensor, tensor], int(tensor.shape[0] == 2)) for name, tensor in layers.items()}  # of a base twice as wide
    StableDiffusionPipeline.save_lora_weights(str(tmp_path), unet_lora_layers=wide, weight_name="other.safetensors")
    merged = open_model(sd_folder, lora=tmp_path / "mine.safetensors")
    expected = open_model(tmp_path / "out").unet.state_dict()
    assert all(torch.allclose(tensor, expected[name], atol=1e-6) for name, tensor in merged.unet.state_dict().items())
    for name, sentence in (("other", "that of another base model"), ("gone", "no LoRA file")):
        with pytest.raises(ValueError, match=sentence):
            open_model(sd_folder, lora=tmp_path / f"{name}.safetensors")


def test_gradient_checkpointing_changes_no_gradient(sd_folder):
    pixels, gradients = torch.rand(1, 3, 64, 64) * 2 - 1, []
    for checkpointing in (False, True):
        model = StableDiffusion(str(sd_folder), resolution=64, gradient_checkpointing=checkpointing)
        model.losses(batch_of(pixels)).mean().backward()
        gradients.append(model.unet.conv_in.weight.grad)
    torch.testing.assert_close(*gradients)


def broken(folder: Path, target: Path, **index: object) -> str:
    shutil.copytree(folder, target)
    file = target / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **index}))
    return str(target)


def test_what_cannot_be_opened_is_refused_in_one_sentence(sd_folder, tmp_path):
    refusals = {
        str(tmp_path / "nowhere"): "give a diffusers folder, a hub id",
        "CompVis/stable-diffusion-v1-4": "hf download CompVis/stable-diffusion-v1-4",
        broken(sd_folder, tmp_path / "xl", _class_name="StableDiffusionXLPipeline"): "is incomplete",
        broken(sd_folder, tmp_path / "three", _class_name="StableDiffusion3Pipeline"): "one sequence",
        broken(sd_folder, tmp_path / "ddpm", _class_name="DDPMPipeline"): "a StableDiffusionPipeline .* was expected",
    }
    shutil.rmtree(Path(broken(sd_folder, tmp_path / "torn")) / "vae")
    refusals[str(tmp_path / "torn")] = "is incomplete"
    for source, sentence in refusals.items():
        with pytest.raises(ValueError, match=sentence):
            StableDiffusion(source, resolution=64)
    with pytest.raises(ValueError, match="is a StableDiffusion3Pipeline, which is not supported: text and pixels are one sequence"):
        open_model(tmp_path / "three")
    for options, sentence in (({"resolution": 96}, "multiple of 64"), ({"resolution": 64, "channels": 1}, "channels must be 3")):
        with pytest.raises(ValueError, match=sentence):
            StableDiffusion(str(sd_folder), **options)


def test_a_model_for_inpainting_is_refused(sd_folder, tmp_path):
    shutil.copytree(sd_folder, tmp_path / "nine")
    unet = diffusers.UNet2DConditionModel.from_pretrained(sd_folder, subfolder="unet")
    diffusers.UNet2DConditionModel.from_config({**unet.config, "in_channels": 9}).save_pretrained(tmp_path / "nine" / "unet")
    with pytest.raises(ValueError, match="9 channels.*inpainting"):
        StableDiffusion(str(tmp_path / "nine"), resolution=64)


def test_a_safety_checker_is_ignored_and_said_once(sd_folder, tmp_path, caplog):
    source = broken(sd_folder, tmp_path / "safe", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    with caplog.at_level(logging.INFO, logger="afterglow"):
        StableDiffusion(source, resolution=64)
    assert [record.message for record in caplog.records if "safety checker" in record.message] and len(caplog.records) == 1


def test_halves_and_products_with_a_jacobian_do_not_go_together(model):
    half = StableDiffusion(model.source, resolution=64).to(torch.bfloat16).eval()
    with pytest.raises(ValueError, match="sharpness .* requires float32"):
        generate(half, CAPTIONS[:1], [0], Sampler(steps=1), CaptureConfig(extras=("sharpness",)))
    generations = generate(half, CAPTIONS[:1], [0], Sampler(steps=2, guidance_scale=7.5, options={}))
    assert generations.provenance["dtype"] == "torch.bfloat16" and generations.guidance.isfinite().all()
