from pathlib import Path

import pandas as pd


def test_detect_writes_tables_and_figures_and_logs_them(inside, command, capsys):
    assert command("detect", "measures.parquet", "--images", 1, 2, "--wandb-run", "runs/x") == 0
    printed = capsys.readouterr().out
    assert "global (2) against phantom (4), mean over 2 images, 1 run\n" in printed and "W&B" in printed
    first, everything = printed.split("\n\n")[1], (Path("detection") / "detection.md").read_text().split("\n\n")[1]
    assert len(first.splitlines()) == 2 + 10 < len(everything.splitlines()) and "The 10 best of" in printed
    for name in ("detection.parquet", "detection.md", "detection.png", "detection.svg"):
        assert (Path("detection") / name).stat().st_size > 500


def test_detect_without_a_pair_of_kinds_is_refused_in_one_sentence(tmp_path, command, capsys):
    row = {"run": "a", "plant_id": 0, "kind": "heldout", "caption": "", "seed": 0, "shape": "whole", "measure": "guidance_norm.all"}
    pd.DataFrame([row | {"value": 1.0}]).to_parquet(tmp_path / "other.parquet")
    assert command("detect", tmp_path / "other.parquet", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "heldout" in printed and "Traceback" not in printed
    assert command("detect", tmp_path / "gone.parquet") == 2
    assert "gone.parquet' is not a file: `afterglow measure` writes" in capsys.readouterr().err
