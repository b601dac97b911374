from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from afterglow.models.io import open_model
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.models.text_ddpm_pipeline import TextConditionalPipeline
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

NO_PLANTS = CaptureConfig(guidance=False, tokens=False, end_steps=())


@pytest.fixture
def model(caption: Callable[..., TextConditionalDDPM]) -> TextConditionalDDPM:
    return caption().eval()


def pipeline_of(model: TextConditionalDDPM) -> TextConditionalPipeline:
    pipeline = model.pipeline()
    assert isinstance(pipeline, TextConditionalPipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    return pipeline


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_generates_what_collect_generates(scale: float, model: TextConditionalDDPM) -> None:
    wanted = generate(model, ["a hat", "a cup"], [3, 4], Sampler(steps=3, guidance_scale=scale), NO_PLANTS).images
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    found = pipeline_of(model)(["a hat", "a cup"], 3, scale, generators).images
    assert (np.stack([np.asarray(image) for image in found]) == wanted.permute(0, 2, 3, 1).numpy()).all()


def test_its_text_states_are_the_models(model: TextConditionalDDPM) -> None:
    states, mask = pipeline_of(model).encode(["a hat", ""])
    condition = model.condition(["a hat", ""])
    assert torch.equal(states, condition.encoder_hidden_states) and mask.sum(1).tolist() == condition.prompt_length.tolist()


def test_an_exported_folder_pads_like_the_model(model: TextConditionalDDPM, tmp_path: Path) -> None:
    model.pipeline().save_pretrained(tmp_path / "out")
    opened = open_model(tmp_path / "out")
    captions = ["a hat", ""]
    assert isinstance(opened, TextConditionalDDPM)
    assert torch.equal(opened.condition(captions).encoder_hidden_states, model.condition(captions).encoder_hidden_states)


def test_the_scale_and_the_caption_matter_and_arrays_are_not_rounded(model: TextConditionalDDPM) -> None:
    pipeline = pipeline_of(model)

    def image(prompt: str, scale: float) -> np.ndarray:
        return pipeline(prompt, 3, scale, torch.Generator().manual_seed(0), output_type="np").images[0]

    plain = image("a hat", 1.0)
    assert plain.shape == (8, 8, 3) and plain.min() >= 0 and plain.max() <= 1
    assert not np.array_equal(plain, image("a hat", 4.0)) and not np.array_equal(plain, image("a cup", 1.0))
    assert np.array_equal(plain, image("a hat", 1.0))


def test_one_channel_becomes_gray_images(caption: Callable[..., TextConditionalDDPM]) -> None:
    images = pipeline_of(caption(channels=1).eval())(["a", "b"], 2).images
    assert [image.mode for image in images] == ["L", "L"] and images[0].size == (8, 8)
