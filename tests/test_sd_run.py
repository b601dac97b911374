"""Stable Diffusion's structure through the door: a fine-tune, torn and resumed, exported, collected and measured."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from afterglow.cli import main
from afterglow.models.io import load_denoiser
from afterglow.models.lightning_module import DenoiserModule

ROOT = Path(__file__).parent.parent
PLANTING = (
    "{num_global: 2, num_local: 2, num_decoys: 1, num_tints: 1, num_backgrounds: 4, num_decoy_images: 4, num_heldout: 2, copies: [6]}"
)
SMALL = [
    *("--config", str(ROOT / "configs/sd14_memorize.yaml"), "--config", str(ROOT / "configs/overlays/small_sd.yaml")),
    *("--data.dataset", "imagefolder", "--data.set_size", "8", "--data.batch_size", "2", "--data.planting", PLANTING),
    *(
        "--trainer.max_steps",
        "6",
        "--checkpoint.every_n_train_steps",
        "2",
        "--monitor.first_fraction",
        "0.5",
        "--monitor.step_ratio",
        "3",
        "--monitor.num_controls",
        "2",
    ),
    *("--monitor.final_seeds", "1", "--monitor.seeds", "1", "--monitor.num_heldout", "1", "--monitor.sampler.steps", "2"),
]


def command(monkeypatch: pytest.MonkeyPatch, file: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [file, *arguments])
    runpy.run_path(str(ROOT / file), run_name="__main__")


@pytest.fixture(scope="module")
def runs(sd_folder, tmp_path_factory):
    """runs/whole, and runs/torn: the same, stopped in its fifth step and resumed without the cache."""
    folder = tmp_path_factory.mktemp("sd_run")
    images = folder / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(images / f"{number}.png")
    lines = [json.dumps({"file_name": f"{number}.png", "text": f"an image number {number}"}) for number in range(40)]
    (images / "metadata.jsonl").write_text("\n".join(lines))
    args = [*SMALL, "--data.data_dir", str(images), "--model.source", str(sd_folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AFTERGLOW_CACHE", str(folder / "cache"))
        main(["train", *args, "--name", "whole"])
        step = DenoiserModule.training_step

        def stops(self, batch, batch_idx):
            if self.global_step == 4:
                raise RuntimeError("the machine went away")
            return step(self, batch, batch_idx)

        patch.setattr(DenoiserModule, "training_step", stops)
        with pytest.raises(RuntimeError, match="went away"):
            main(["train", *args, "--name", "torn"])
        patch.setattr(DenoiserModule, "training_step", step)
        main(["train", *args, "--name", "torn", "--ckpt_path", "last"])
    return folder / "runs"


def test_a_resumed_run_has_the_numbers_of_a_whole_one(runs):
    keys = ["step", "plant_id", "kind", "caption", "seed", "measure", "value"]
    whole, torn = (pd.read_parquet(runs / name / "measurements.parquet")[keys] for name in ("whole", "torn"))
    pd.testing.assert_frame_equal(whole, torn)
    assert {"reconstruction_error", "calibrated_l2", "ld.be.all", "guidance_norm.all", "denoising_loss"} <= set(whole["measure"])
    lost = whole[whole["measure"] == "reconstruction_error"]["value"]
    assert (lost > 0).all() and (runs / "whole" / "report.html").exists()


def test_only_the_unet_is_in_the_checkpoint_and_it_opens(runs, tmp_path, monkeypatch, capsys):
    state = torch.load(runs / "whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("model.unet.") for name in state)
    command(monkeypatch, "train/export.py", str(runs / "whole"), "--out", str(tmp_path / "out"))
    assert "StableDiffusionPipeline" in capsys.readouterr().out
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    assert torch.equal(pipeline.unet.conv_in.weight, load_denoiser(runs / "whole").unet.conv_in.weight)
    assert len(pipeline(["an image"], num_inference_steps=1).images) == 1


def test_a_folder_is_collected_with_images_and_measured(sd_folder, tmp_path, monkeypatch, capsys):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (80, 100, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "list.jsonl").write_text('{"caption": "a house", "image": "a.png", "label": "VM"}\n')
    source = ["--model", str(sd_folder), "--prompts", str(tmp_path / "list.jsonl"), "--guidance-scale", "7.5", "--num-images", "2"]
    options = [
        "--num-inference-steps",
        "12",
        "--scheduler",
        "DPMSolverMultistepScheduler",
        "--seed-rule",
        "prompt",
        "--measures",
        "ld.be.*",
        "guidance_norm.*",
    ]
    command(monkeypatch, "analysis/collect.py", *source, *options, "--out", str(tmp_path / "generations"))
    command(monkeypatch, "analysis/measure.py", str(tmp_path / "generations"), "--out", str(tmp_path / "m.parquet"))
    rows = pd.read_parquet(tmp_path / "m.parquet")
    wanted = {"ld.be.1", "ld.be.10", "ld.be.all", "guidance_norm.1", "guidance_norm.10", "guidance_norm.all"}
    assert wanted <= set(rows["measure"]) and set(rows["kind"]) == {"global"}


def test_a_run_is_asked_for_its_plants(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs.parent)
    monkeypatch.setenv("AFTERGLOW_CACHE", str(runs.parent / "cache"))
    options = [
        "--num-inference-steps",
        "2",
        "--num-images",
        "1",
        "--controls",
        "1",
        "--measures",
        "calibrated_l2",
        "reconstruction_error",
        "s_latent",
    ]
    command(monkeypatch, "analysis/collect.py", "--model", "runs/whole", "--run", "runs/whole", *options, "--out", str(tmp_path / "e"))
    command(monkeypatch, "analysis/measure.py", str(tmp_path / "e"), "--out", str(tmp_path / "m.parquet"))
    assert {"calibrated_l2", "reconstruction_error"} <= set(pd.read_parquet(tmp_path / "m.parquet")["measure"])


def test_halves_without_a_gpu_are_refused(sd_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    (tmp_path / "list.txt").write_text("a house\n")
    for file, arguments in (
        ("analysis/collect.py", ["--model", str(sd_folder), "--prompts", str(tmp_path / "list.txt"), "--out", str(tmp_path / "e")]),
        ("train.py", [*SMALL, "--data.data_dir", str(tmp_path), "--model.source", str(sd_folder), "--name", "half"]),
    ):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as left:
            command(monkeypatch, file, *arguments)
        assert left.value.code == 2 and "fp16 is not supported on CPU" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() and not (tmp_path / "e").exists()
