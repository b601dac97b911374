"""The script lists exactly the committed runs, its commands have only options that exist, and it copies what the pages read."""

import runpy
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from afterglow.cli.parser import CommandParser

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "docs" / "findings"


@pytest.fixture(scope="module")
def reproduce() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "reproduce.py")))


def runs_of(reproduce: SimpleNamespace) -> list:
    return [run for make in reproduce.FINDING_RUNS.values() for run in make()]


def test_runs_equal_the_committed_folders(reproduce) -> None:
    underway = {run.folder: run for finding in reproduce.UNDERWAY for run in reproduce.FINDING_RUNS[finding]()}
    runs = {run.folder: run for run in runs_of(reproduce)}
    committed = {str(path.parent.relative_to(FINDINGS)).removesuffix("/knockout") for path in FINDINGS.rglob("*.parquet")}
    assert set(runs) - set(underway) <= committed <= set(runs)
    assert all(runs[folder].complete and not reproduce.missing_commands(runs[folder]) for folder in committed)


def test_rows_of_every_layer_are_kept_of_the_last_evaluation_only(reproduce, tmp_path) -> None:
    names = ["auc.token_group.last.pads.all", "auc.token_group.last.pads.mid", "iou.luminance", "attention_mass.bos.mid"]
    rows = [{"step": step, "kind": "local", "measure": name, "value": 1.0, "caption": "x"} for step in (5, 9) for name in names]
    pd.DataFrame(rows).to_parquet(tmp_path / "all.parquet")
    run = next(reproduce.endings())
    reproduce.write_rows(tmp_path / "all.parquet", tmp_path / "kept.parquet", run.measures, run.last_measures)
    kept = pd.read_parquet(tmp_path / "kept.parquet")
    assert list(zip(kept["step"], kept["measure"], strict=True)) == [(5, names[0]), (9, names[0]), (9, names[1]), (9, names[3])]


def test_future_runs_of_endings_keep_the_controls_of_the_maps(reproduce, tmp_path) -> None:
    kept = [
        "auc.mask_prior",
        "permuted_auc.token_group.last.pads.all",
        "permuted_auc.end_token.last.first_eos.be",
        "permuted_auc.luminance",
    ]
    last = ["permuted_auc.token_group.last.pads.mid_block.attentions.0"]
    rows = [{"step": step, "kind": "local", "measure": name, "value": 1.0, "caption": ""} for step in (5, 9) for name in [*kept, *last]]
    pd.DataFrame(rows).to_parquet(tmp_path / "all.parquet")
    for run in (next(reproduce.endings()), next(reproduce.small_sd())):
        reproduce.write_rows(tmp_path / "all.parquet", tmp_path / "kept.parquet", run.measures, run.last_measures)
        found = pd.read_parquet(tmp_path / "kept.parquet")
        assert [found[found["step"] == step]["measure"].tolist() for step in (5, 9)] == [kept, [*kept, *last]]


def test_training_options_equal_the_committed_configurations(reproduce) -> None:
    """A dotted option of a training has its value in the configuration that the training left."""
    for run in runs_of(reproduce):
        config_file = FINDINGS / run.folder / "config.yaml"
        if not config_file.exists():
            continue
        config, options = yaml.safe_load(config_file.read_text()), run.commands[-1].arguments
        for option, value in zip(options, options[1:], strict=False):
            if option.startswith(("--data.", "--trainer.", "--seed_", "--monitor.")) and "data_dir" not in option:
                keys = option.removeprefix("--").replace("data.", "data.init_args.", 1).split(".")
                found = config
                for key in keys:
                    found = found[key]
                assert found == yaml.safe_load(value), (run.folder, option)


def test_write_rows_keeps_what_the_pages_read(reproduce, tmp_path) -> None:
    rows = [("global", "plant_memorized"), ("global", "confirm.1"), ("global", "guidance_norm.all"), ("unprompted", "nn_ratio")]
    rows += [("unprompted", "calibrated_l2"), ("unprompted", "nearest_cluster"), ("unprompted", "plant_memorized")]
    table = pd.DataFrame(rows, columns=["kind", "measure"]).assign(value=1.0, caption="secret")
    table.to_parquet(tmp_path / "all.parquet")
    reproduce.write_rows(tmp_path / "all.parquet", tmp_path / "kept.parquet", reproduce.MEASURES)
    kept = pd.read_parquet(tmp_path / "kept.parquet")
    assert list(zip(kept["kind"], kept["measure"], strict=True)) == [*rows[:2], *rows[3:6]] and set(kept["caption"]) == {""}


def test_options_of_analysis_commands_exist(reproduce) -> None:
    """Options of `train` and `plant` are checked against the committed configurations above."""
    for run in runs_of(reproduce):
        for command in run.commands:
            name, *arguments = command.arguments
            if name not in ("train", "plant"):
                parser = CommandParser(prog=name)
                import_module(f"afterglow.cli.{name.replace('-', '_')}").add_arguments(parser)
                parser.parse_args(arguments)  # exits on an unknown option or a value of a wrong type
