"""Stable Diffusion's structure through the commands: a fine-tuning run, interrupted and resumed, exported, collected and measured."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from fast_training import accelerate
from PIL import Image

from afterglow.cli import main
from afterglow.generations import Generations, parts_of
from afterglow.models.io import load_denoiser

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
def images(tmp_path_factory):
    """A folder of 40 captioned images of 64 pixels."""
    folder = tmp_path_factory.mktemp("sd_run") / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    lines = [json.dumps({"file_name": f"{number}.png", "text": f"an image number {number}"}) for number in range(40)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def training(images: Path, *args: str) -> list[str]:
    """The words of a training that keeps all checkpoints."""
    return [*SMALL, "--data.data_dir", str(images), *args, "--checkpoint.save_top_k=-1"]


def train_and_resume(images: Path, name: str, resumed: str, lost: tuple[int, ...], *args: str) -> Path:
    """The folder of runs/NAME and runs/RESUMED, which goes on from the last checkpoint of the first that is not lost."""
    folder = images.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AFTERGLOW_CACHE", str(folder / "cache"))
        words = ["train", *training(images, *args)]
        main([*words, "--name", name])
        shutil.copytree(f"runs/{name}", f"runs/{resumed}")
        for file in ("last", *(f"step={step}" for step in lost)):
            Path(f"runs/{resumed}/checkpoints/{file}.ckpt").unlink()
        main([*words, "--name", resumed, "--resume", "auto"])
    return folder / "runs"


def assert_same_rows(runs: Path, name: str, resumed: str) -> pd.DataFrame:
    keys = ["step", "plant_id", "kind", "caption", "seed", "measure", "value"]
    whole, torn = (pd.read_parquet(runs / run / "measurements.parquet")[keys] for run in (name, resumed))
    pd.testing.assert_frame_equal(whole, torn)
    return whole


@pytest.fixture(scope="module")
def runs(sd_folder, images):
    """runs/whole of six steps, and runs/torn: the same, resumed from its fourth step."""
    return train_and_resume(images, "whole", "torn", (6,), "--model.source", str(sd_folder))


def test_a_resumed_run_has_the_numbers_of_a_whole_one(runs):
    whole = assert_same_rows(runs, "whole", "torn")
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


MAP = "end_token.last.first_eos.be"
SHORT = (
    *("--trainer.max_steps", "2", "--checkpoint.every_n_train_steps", "1", "--monitor.first_fraction", "1"),
    *("--monitor.measures", f"[calibrated_l2, {MAP}]"),
)


@pytest.fixture(scope="module")
def xl_export(xl_folder, images):
    """Stable Diffusion XL's structure: a run of two steps, resumed from its first one, and exported."""
    runs = train_and_resume(images, "xl", "xl_torn", (2,), "--model.source", str(xl_folder), *SHORT)
    main(["export", str(runs / "xl_torn"), "--out", str(images.parent / "xl_export")])
    return images.parent / "xl_export"


def test_xl_trains_resumes_and_its_export_opens(xl_folder, xl_export):
    runs = xl_export.parent / "runs"
    rows = assert_same_rows(runs, "xl", "xl_torn")
    assert set(rows["step"]) == {0, 2} and {"calibrated_l2", f"auc.{MAP}", "denoising_loss"} <= set(rows["measure"])
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_export)
    weights, before = pipeline.unet.state_dict(), UNet2DConditionModel.from_pretrained(xl_folder / "unet").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in load_denoiser(runs / "xl").unet.state_dict().items())
    assert any(not torch.equal(value, weights[name]) for name, value in before.items())
    assert type(pipeline.scheduler).__name__ == "EulerDiscreteScheduler"
    assert len(pipeline(["an image"], num_inference_steps=1).images) == 1


def test_xl_is_collected_measured_and_audited(xl_export, images, tmp_path, monkeypatch, capsys):
    (tmp_path / "list.jsonl").write_text('{"caption": "a house"}\n')
    few = ("--num-images", "2", "--num-inference-steps", "1")
    chosen = ("--measures", MAP, "memattn_e")
    prompts = ("--prompts", str(tmp_path / "list.jsonl"))
    main(["collect", "--model", str(xl_export), *prompts, *few, *chosen, "--out", str(tmp_path / "e")])
    found = Generations.load(parts_of(tmp_path / "e")[0])
    assert {layer.split(".transformer")[0] for _, layer in found.end_attention} >= {f"down_blocks.1.attentions.{n}" for n in (0, 1)}
    main(["measure", str(tmp_path / "e"), "--out", str(tmp_path / "m.parquet")])
    assert "memattn_e" in set(pd.read_parquet(tmp_path / "m.parquet")["measure"])
    capsys.readouterr()
    main(["audit", "--model", str(xl_export), "--data", str(images), *few, "--out", str(tmp_path / "audit")])
    assert "40" in capsys.readouterr().out and len(pd.read_parquet(tmp_path / "audit/audit.parquet")) == 40


@pytest.mark.faults
def test_xl_on_two_processes_has_the_rows_of_one(xl_folder, xl_export, images):
    words = training(images, "--model.source", str(xl_folder), *SHORT, "--name", "xl_two")
    done = accelerate(images.parent, "--multi_gpu", "--num_processes", "2", args=words)
    assert done.returncode == 0, done.stderr[-3000:]
    keys = ["step", "plant_id", "seed", "measure"]
    one, two = (
        pd.read_parquet(images.parent / f"runs/{name}/measurements.parquet").sort_values(keys).set_index(keys) for name in ("xl", "xl_two")
    )
    assert one.index.equals(two.index)
    difference = (one["value"] - two["value"]).abs()
    print(f"\nlargest difference between one and two processes: {difference.max():.1e}")
    assert difference.max() < 1e-3


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
