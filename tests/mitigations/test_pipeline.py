import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline

from afterglow.mitigations.inference.attention_scaling import AttentionScaling
from afterglow.mitigations.inference.caption_insertion import CaptionInsertion
from afterglow.mitigations.inference.guidance_schedule import DynamicTransition, OppositeDynamic
from afterglow.mitigations.inference.noise_selection import NoiseSelection
from afterglow.mitigations.inference.prompt_optimization import PromptOptimization
from afterglow.mitigations.inference.reanchoring import Reanchoring
from afterglow.mitigations.pipeline import PipelineModel, mitigated
from afterglow.models.io import export, open_model
from afterglow.sampling.loop import Sampler, generate

REMEDIES = [
    PromptOptimization(0.0, max_steps=2),
    CaptionInsertion("numbers", 1),
    AttentionScaling(1.5),
    DynamicTransition(0.7),
    OppositeDynamic(),
    NoiseSelection(2),
    Reanchoring(0.0, [0.0] * 4, [1e-3] * 4, candidates=1),
]
OPTIONS = {"timestep_spacing": "trailing"}


def drawn(pipeline, mitigation, captions, seeds, scale, steps=4):
    with mitigated(pipeline, mitigation, captions, seeds, steps=steps, scale=scale) as call:
        images = pipeline(**call, output_type="np").images
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipeline.unet.modules())
    return images


@pytest.mark.parametrize("mitigation", REMEDIES, ids=lambda mitigation: type(mitigation).__name__)
def test_in_a_caption_pipeline_a_mitigation_does_what_it_does_in_generate(mitigation, heard, nothing, setup):
    pipeline = heard.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **OPTIONS)
    wanted = generate(heard, setup.captions, setup.seeds, Sampler(steps=4, guidance_scale=2.0), nothing, mitigation=mitigation).images
    plain = generate(heard, setup.captions, setup.seeds, Sampler(steps=4, guidance_scale=2.0), nothing).images
    found = drawn(pipeline, mitigation, setup.captions, setup.seeds, 2.0).transpose(0, 3, 1, 2) * 255
    off = np.abs(found - wanted.numpy())
    assert np.quantile(off, 0.95) <= 1 and not torch.equal(wanted, plain)


def test_an_exported_pipeline_opened_without_afterglow_is_mitigated_alike(heard, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = export(heard, tmp_path / "exported")
    opened = DiffusionPipeline.from_pretrained(folder, custom_pipeline=str(folder), trust_remote_code=True)
    own = heard.pipeline()
    assert type(opened) is not type(own)
    images = []
    for pipeline in (own, opened):
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **OPTIONS)
        images.append(drawn(pipeline, DynamicTransition(0.7), ["a dog"], [0], 2.0))
    assert (images[0] == images[1]).all()


def test_a_pipeline_without_captions_is_refused(small_plain):
    model = small_plain()
    with pytest.raises(ValueError, match="cannot read the captions of a DDIMPipeline"):
        PipelineModel(DDIMPipeline(model.unet, model.scheduler))


@pytest.fixture(scope="module")
def stable(sd_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(sd_folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    "mitigation", [PromptOptimization(0.0, max_steps=1), AttentionScaling(1.5)], ids=lambda mitigation: type(mitigation).__name__
)
def test_in_stable_diffusions_pipeline_too(mitigation, stable, sd_folder, nothing):
    model = open_model(sd_folder)
    sampler = Sampler(steps=2, guidance_scale=7.5, options={})
    wanted = generate(model, ["a house"], [3], sampler, nothing, mitigation=mitigation).images
    found = drawn(stable, mitigation, ["a house"], [3], 7.5, steps=2).transpose(0, 3, 1, 2) * 255
    assert np.abs(found - wanted.numpy()).max() <= 2


def test_a_mitigation_that_changes_nothing_leaves_stable_diffusions_images(stable):
    plain = stable(
        "a house", num_inference_steps=2, guidance_scale=7.5, generator=[torch.Generator().manual_seed(3)], output_type="np"
    ).images
    assert np.abs(drawn(stable, DynamicTransition(0.0), ["a house"], [3], 7.5, steps=2) - plain).max() <= 1e-4
