"""Truncated, empty, unrelated and pickled files of run folders, collections and models: one sentence names the file, and no code runs."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from afterglow.cli import main
from afterglow.errors import AfterglowError, one_line
from afterglow.generations import Generations
from afterglow.models.ddpm import DDPM
from afterglow.models.io import export, load_denoiser, open_model
from afterglow.models.text_encoder import TextEncoder
from afterglow.planting.io import write_planted
from afterglow.planting.plants import PlantedSet
from afterglow.planting.runs import load_planted_set

ROWS = {
    "step": 0,
    "epoch": 0.0,
    "seconds": 0.0,
    "plant_id": 0,
    "kind": "global",
    "caption": "a",
    "seed": 0,
    "measure": "memorized",
    "value": 1.0,
}


class _Payload:
    def __reduce__(self) -> Any:
        return os.system, ('touch "$CANARY"',)


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    yield
    assert not (tmp_path / "canary").exists(), "code of a file was executed"


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "torn": lambda content: content[: len(content) // 2],
    "text": lambda _: b"hello\n",
    "binary": lambda _: bytes(range(256)) * 8,
    "pickled": lambda _: pickle.dumps(_Payload()),
    "picture": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "nested": lambda _: b"[" * 100_000,
    "list": lambda _: b"[1, 2]",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two evaluations."""
    folder = tmp_path / "run"
    folder.mkdir()
    frames = [{**ROWS, "step": step, "plant_id": plant} for step in (0, 2) for plant in range(3)]
    pd.DataFrame(frames).to_parquet(folder / "measurements.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {"init_args": {"planting": {}}}}))
    (folder / "emergence.json").write_text(json.dumps({"evaluation_steps": [0, 2], "probe_ratio": None, "kinds": {}}))
    (folder / "plants").mkdir()
    (folder / "plants" / "metadata.jsonl").write_text(
        json.dumps({"plant_id": 0, "kind": "global", "copies": 2, "text": "a", "shape": "whole"}) + "\n"
    )
    return folder


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a command that must end with code 2."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2 and len(lines) == 1 and len(lines[0]) <= 300, lines
    return lines[0]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["measurements.parquet", "config.yaml", "emergence.json", "plants/metadata.jsonl"])
def test_report_of_a_run_with_a_damaged_file_names_it(run: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / name
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    if name == "config.yaml" and damage in ("empty", "torn") or (name, damage) == ("plants/metadata.jsonl", "empty"):
        pytest.skip("the file is still valid: an empty one holds nothing, and half of this YAML is YAML")
    assert file.name in refused(capsys, "report", run)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["detect", "compare", "emergence"])
def test_analysis_of_a_damaged_table_names_it(run: Path, command: str, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "measurements.parquet"
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert "measurements.parquet" in refused(capsys, command, file if command == "detect" else run)


def test_detect_of_another_table_or_file_names_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(run / "other.parquet")
    assert "lacks the columns" in refused(capsys, "detect", run / "other.parquet")
    assert "emergence.json" in refused(capsys, "detect", run / "emergence.json")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["tensors.safetensors", "provenance.json", "table/state.json"])
def test_generations_with_a_damaged_file_are_refused(
    generations: Generations, tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generations.save(tmp_path / "g")
    (tmp_path / "g" / name).write_bytes(DAMAGE[damage]((tmp_path / "g" / name).read_bytes()))
    command = "measure" if damage in ("torn", "pickled") else "localize"
    assert str(tmp_path / "g") in refused(capsys, command, tmp_path / "g", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    [b"{}", b"seed_everything: 0\n", b"data: 3\nseed_everything: 0\n", b"data: {init_args: {planting: {foo: 1}}}\nseed_everything: 0\n"],
)
def test_planted_set_of_a_run_without_its_configuration_is_refused(run: Path, text: bytes) -> None:
    (run / "config.yaml").write_bytes(text)
    with pytest.raises(AfterglowError, match=r"config\.yaml"):
        load_planted_set(run)


@pytest.mark.parametrize("damage", DAMAGE)
def test_planted_folder_with_a_damaged_table_is_refused(
    planted: PlantedSet, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_planted(planted, tmp_path / "planted")
    table = tmp_path / "planted" / "metadata.jsonl"
    table.write_bytes(DAMAGE[damage](table.read_bytes()))
    words = ("deduplicate", tmp_path / "planted", "--method", "exact", "--out", tmp_path / "out")
    assert str(tmp_path / "planted") in refused(capsys, *words)


@pytest.mark.parametrize("damage", DAMAGE)
def test_model_of_a_damaged_checkpoint_is_refused(small_plain: Callable[..., DDPM], tmp_path: Path, damage: str) -> None:
    model, file = small_plain(), tmp_path / "x.ckpt"
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"denoiser": {"name": "DDPM", "init_args": model.init_args}, "state_dict": state}, file)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    with pytest.raises(AfterglowError, match=r"x\.ckpt"):
        load_denoiser(file)


@pytest.mark.parametrize(
    "checkpoint",
    [
        {},
        {"denoiser": {"name": "DDPM"}},
        {"denoiser": {"name": "DDPM", "init_args": {"unet": {}, "resolution": 8}}},
        {"denoiser": {"name": "DDPM", "init_args": {"foo": 3}}, "state_dict": {}},
        {"denoiser": {"name": "DDPM", "init_args": 3}, "state_dict": {}},
        {"denoiser": {"name": "importlib", "init_args": {"name": "os"}}, "state_dict": {}},
        {"denoiser": {"name": "os.system", "init_args": {"command": 'touch "$CANARY"'}}, "state_dict": {}},
        {"denoiser": {"name": "Denoiser", "init_args": {}}, "state_dict": {"a": torch.zeros(1)}},
        {"denoiser": [], "state_dict": {}},
    ],
)
def test_model_of_a_checkpoint_with_other_contents_is_refused(tmp_path: Path, checkpoint: dict[str, Any]) -> None:
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(AfterglowError) as error:
        load_denoiser(tmp_path / "x.ckpt")
    assert len(one_line(str(error.value))) <= 300


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "nested"])
@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_model_folder_with_a_damaged_file_is_refused(small_plain: Callable[..., DDPM], tmp_path: Path, name: str, damage: str) -> None:
    folder = export(small_plain(), tmp_path / "m")
    (folder / name).write_bytes(DAMAGE[damage]((folder / name).read_bytes()))
    with pytest.raises(AfterglowError) as error:
        open_model(folder)
    assert str(folder)[:20] in str(error.value)


def test_code_of_a_model_folder_is_neither_run_nor_asked_for(small_plain: Callable[..., DDPM], tmp_path: Path) -> None:
    evil = f"open({str(tmp_path / 'canary')!r}, 'w').write('imported')\nclass Evil: ...\n"
    folder = export(small_plain(), tmp_path / "m")
    (folder / "pipeline.py").write_text(evil)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": ["pipeline", "Evil"]}))
    with pytest.raises(AfterglowError, match="is a Evil"):
        open_model(folder)
    text = tmp_path / "text"
    text.mkdir()
    (text / "evil.py").write_text(evil)
    maps = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    for name in ("config.json", "tokenizer_config.json"):
        (text / name).write_text(json.dumps({"model_type": "evil", "auto_map": maps}))
    with pytest.raises(AfterglowError, match="No text encoder or tokenizer"):
        TextEncoder(str(text))


def test_pickled_weights_are_not_opened(small_plain: Callable[..., DDPM], tmp_path: Path) -> None:
    folder = export(small_plain(), tmp_path / "m")
    shutil.move(folder / "unet" / "diffusion_pytorch_model.safetensors", tmp_path / "weights")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(AfterglowError, match="No readable unet"):
        open_model(folder)
