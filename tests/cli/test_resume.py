import logging
from pathlib import Path

import pytest
import torch
import yaml
from fast_training import FAST

from afterglow.cli.resume import Resume, changed_options, check_weights, find_resume, newest_checkpoint, refuse_changes
from afterglow.errors import AfterglowError
from afterglow.models.checkpoint import write_checkpoint
from afterglow.reports.run import read_config


def save(file: Path, step: int, **callbacks: dict) -> Path:
    write_checkpoint({"global_step": step, "state_dict": {"a": torch.ones(2)}, "callbacks": callbacks}, file)
    return file


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs/x"
    save(folder / "checkpoints/last.ckpt", 6, RunCheckpoint={"world_size": 2, "scores": {}})
    save(folder / "checkpoints/step=6.ckpt", 6)
    save(folder / "checkpoints/step=4.ckpt", 4)
    return folder


def test_newest_checkpoint_is_last_and_what_it_says_is_printed(run):
    found = newest_checkpoint(run)
    assert found == Resume(run / "checkpoints/last.ckpt", 6, 2, False)
    assert found.describe(2) == f"Resuming at step 6 from '{run / 'checkpoints/last.ckpt'}'."
    assert "written by 2 process(es) and continues on 1" in found.describe(1)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:400] + b"?" + data[401:]])
def test_newest_checkpoint_with_a_damaged_last_is_the_newest_intact_and_says_so_once(run, caplog, damage):
    last = run / "checkpoints/last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    with caplog.at_level(logging.INFO, "afterglow"):
        assert newest_checkpoint(run).file.name == "step=6.ckpt"
    (record,) = caplog.records
    assert "last.ckpt" in record.getMessage() and "The newest intact checkpoint is '" in record.getMessage()
    (run / "checkpoints/step=6.ckpt").write_bytes(b"")
    assert newest_checkpoint(run).step == 4
    (run / "checkpoints/step=4.ckpt").unlink()
    for resume, path in (("auto", None), (None, "last")):
        with pytest.raises(AfterglowError, match="No checkpoint of '.*x' is intact"):
            find_resume(run, path, resume)


@pytest.mark.parametrize("name", ["hpc_ckpt_1.ckpt", "checkpoints/step=8.ckpt", "checkpoints/other.ckpt"])
def test_newest_checkpoint_ignores_nothing_that_is_newer(run, name):
    newer = save(run / name, 8)
    assert newest_checkpoint(run) == Resume(newer, 8, None, False)
    assert find_resume(run, "last", None).file == newer


def test_find_resume_begins_resumes_or_refuses_as_requested(run, tmp_path):
    new = tmp_path / "runs/new"
    assert find_resume(new, None, None) is None and find_resume(new, None, "auto") is None
    assert find_resume(run, None, "auto").step == 6 and find_resume(run, str(run / "checkpoints/step=4.ckpt"), None).step == 4
    assert find_resume(new, str(run / "checkpoints/step=4.ckpt"), None).step == 4  # a new run from a checkpoint of another one
    with pytest.raises(AfterglowError, match="already holds a run: resume it with --ckpt_path last"):
        find_resume(run, None, None)
    with pytest.raises(AfterglowError, match="already holds a run, and '.*other.ckpt' is of another one"):
        find_resume(run, str(save(tmp_path / "other.ckpt", 3)), None)


def test_find_resume_of_last_without_a_checkpoint_names_the_folder_and_the_nearest_run(run, tmp_path):
    (tmp_path / "runs/demonstration/checkpoints").mkdir(parents=True)
    with pytest.raises(AfterglowError, match="There is no checkpoint in '.*demonstrtion.checkpoints': did you mean demonstration"):
        find_resume(tmp_path / "runs/demonstrtion", "last", None)
    with pytest.raises(AfterglowError, match="--resume auto begins a run that does not exist"):
        find_resume(tmp_path / "runs/qqqq", "last", None)
    with pytest.raises(AfterglowError, match="--resume auto begins the run again, from step 0"):
        find_resume(tmp_path / "runs/demonstration", "last", None)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"text"])
def test_find_resume_of_a_path_that_is_no_checkpoint_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(AfterglowError, match="x.jpg' is not a readable checkpoint"):
        find_resume(tmp_path / "runs/new", str(tmp_path / "x.jpg"), None)
    with pytest.raises(AfterglowError, match="There is no checkpoint 'gone.ckpt'"):
        find_resume(tmp_path / "runs/new", "gone.ckpt", None)
    torch.save({"weights": torch.ones(1)}, tmp_path / "foreign.ckpt")
    with pytest.raises(AfterglowError, match="foreign.ckpt' is not a checkpoint of a training"):
        find_resume(tmp_path / "runs/new", str(tmp_path / "foreign.ckpt"), None)


CONFIG = yaml.safe_load("""
seed_everything: 0
name: x
trainer: {max_steps: 6, devices: 1, precision: 32-true, accelerator: auto}
model: {class_path: afterglow.models.DDPM, init_args: {unet: {block_out_channels: [8, 16]}}}
optimizer: {learning_rate: 0.001}
data: {class_path: D, init_args: {data_dir: a, num_workers: 0, planting: {copies: [4], num_global: 2}}}
monitor: {seeds: 2, early_stop: {monitor: null}}
mitigations: []
checkpoint: {every_n_train_steps: 2}
wandb: {project: null}
""")


def changed(text: str) -> list[str]:
    def merge(old: dict, new: dict) -> dict:
        return old | {key: merge(old[key], value) if isinstance(value, dict) and key in old else value for key, value in new.items()}

    return changed_options(CONFIG, merge(CONFIG, yaml.safe_load(text)))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{name: y, ckpt_path: last, resume: auto, allow_changes: true}",
        "{trainer: {max_steps: 12, devices: 2, accelerator: cpu, log_every_n_steps: 1}}",
        "{trainer: {precision: null}}",  # written by the launcher and resumed without it
        "{trainer: {precision: 32}}",
        "{checkpoint: {every_n_train_steps: 5}, wandb: {project: p}, progress: {}}",
        "{data: {init_args: {data_dir: /elsewhere, num_workers: 4, planting: {copies: 4}}}}",
        "{monitor: {early_stop: {monitor: memorized}}}",
        "{ema: {}}",
    ],
)
def test_changed_options_of_what_decides_no_number_are_none(text):
    assert changed(text) == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("{seed_everything: 5}", ["seed_everything is 5 and was 0"]),
        ("{optimizer: {learning_rate: 0.1}}", ["optimizer.learning_rate is 0.1 and was 0.001"]),
        ("{data: {init_args: {planting: {copies: [2]}}}}", ["data.planting.copies is [2] and was [4]"]),
        ("{model: {init_args: {unet: {block_out_channels: [16, 16]}}}}", ["model.unet.block_out_channels is [16, 16] and was [8, 16]"]),
        ("{model: {class_path: afterglow.models.Other}}", ["model.class_path is afterglow.models.Other and was afterglow.models.DDPM"]),
        ("{trainer: {precision: bf16-mixed}}", ["trainer.precision is bf16-mixed and was 32-true"]),
        ("{mitigations: [{class_path: A}]}", ["mitigations is [{'class_path': 'A'}] and was []"]),
        (
            "{monitor: {seeds: 3}, trainer: {accumulate_grad_batches: 2}}",
            ["trainer.accumulate_grad_batches is 2 and was None", "monitor.seeds is 3 and was 2"],
        ),
    ],
)
def test_changed_options_name_option_new_and_old_value(text, phrases):
    assert changed(text) == phrases


def test_refuse_changes_is_one_sentence_that_names_the_first(tmp_path):
    refuse_changes(tmp_path, [])
    with pytest.raises(AfterglowError, match=r"cannot be resumed: a is 1 and was 2 \(1 more differ\). Restore it, choose"):
        refuse_changes(Path("runs/x"), ["a is 1 and was 2", "b is 1 and was 2"])


def test_check_weights_names_the_first_tensor_that_does_not_fit(run):
    file = run / "checkpoints/last.ckpt"
    check_weights(file, {"a": torch.zeros(2)})
    for model, sentence in (
        ({"a": torch.zeros(3)}, r"a is \(2,\) there and \(3,\) in --model"),
        ({"b": torch.zeros(3), "a": torch.zeros(2)}, r"b is missing there and \(3,\) in"),
        ({}, r"a is \(2,\) there and missing in"),
    ):
        with pytest.raises(AfterglowError, match=sentence):
            check_weights(file, model)


def error(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_train_that_resumes_a_changed_or_missing_run_is_refused_and_an_ended_run_stays(command, bench, capsys, monkeypatch):
    monkeypatch.chdir(bench)
    files = [
        path for path in sorted(Path("runs/x").rglob("*")) if path.is_file() and not {"wandb", "lock", "report.html"} & set(path.parts)
    ]
    before = {path: path.read_bytes() for path in files}
    last = ("--name", "x", "--ckpt_path", "last")
    for words, sentence in (
        (("--optimizer.learning_rate", "1e-4"), "optimizer.learning_rate is 0.0001 and was 0.002"),
        (("--seed_everything", "5", "--trainer.max_steps", "8"), "seed_everything is 5 and was 0"),
        (("--data.planting.copies", "2"), "data.planting.copies is 2 and was [4]"),
        (("--model.unet.block_out_channels", "[16,32]"), "model.unet.block_out_channels is [16, 32] and was [8, 16]"),
        (("--resume", "auto"), "either --resume auto or --ckpt_path"),
    ):
        assert command("train", *FAST, *last, *words) == 2
        assert sentence in error(capsys)
    width = ("--model.unet.block_out_channels", "[16,32]", "--allow_changes", "true")
    assert command("train", *FAST, *last, *width) == 2
    assert "is of another model: model.unet.conv_in.weight is (8, 3, 3, 3) there and (16, 3, 3, 3) in --model" in error(capsys)
    assert command("train", *FAST, "--name", "xx", "--ckpt_path", "last") == 2
    assert "There is no checkpoint in 'runs/xx/checkpoints'" in error(capsys) and not Path("runs/xx").exists()
    assert command("train", *FAST, *last, "--optimizer.learning_rate", "1e-4", "--allow_changes", "true") == 0
    said = capsys.readouterr().out
    assert "Resuming at step 6 from 'runs/x/checkpoints/last.ckpt'" in said and "nothing was trained" in said
    assert {path: path.read_bytes() for path in files} == before


def test_train_that_resumes_with_allowed_changes_keeps_the_old_configuration_and_finds_changed_plants(
    command, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    short = ("train", *FAST, "--monitor.first_fraction", "1", "--name", "y", "--monitor.measures", "[calibrated_l2]")
    assert command(*short, "--trainer.max_steps", "2", "--resume", "auto") == 0
    Path("runs/y").rename("runs/z")  # and under its new name it goes on from its own checkpoint
    metadata = Path("runs/z/plants/metadata.jsonl")
    text = metadata.read_text()
    row = yaml.safe_load(text.split("\n")[0])
    metadata.write_text(text.replace(f'"{row["text"]}"', '"another caption"'))
    longer = (*short[:-4], "--name", "z", *short[-2:], "--trainer.max_steps", "4")
    assert command(*longer, "--resume", "auto") == 2
    assert f"text of plant {row['plant_id']} is {row['text']} and was another caption" in error(capsys)
    (metadata.parent / "digest").write_text("0")
    metadata.write_text(text)
    assert command(*longer, "--resume", "auto") == 2
    assert "an image or a caption of the training set has changed" in error(capsys)
    assert command(*longer, "--resume", "auto", "--optimizer.learning_rate", "1e-4", "--allow_changes", "true") == 0
    assert Resume.read(Path("runs/z/checkpoints/last.ckpt")).step == 4
    assert read_config(Path("runs/z"))["optimizer"]["learning_rate"] == 1e-4
    assert yaml.safe_load(Path("runs/z/config_until_step=2.yaml").read_text())["optimizer"]["learning_rate"] == 2e-3
