import shutil
from pathlib import Path


def test_paired_runs_compares_a_run_with_its_baseline(inside, command, capsys):
    for name in ("base-0", "words-0"):
        if not Path("runs", name).exists():
            shutil.copytree("runs/x", f"runs/{name}")
    assert command("paired-runs", "--baseline", "runs/base-0", "--mitigated", "runs/words-0", "--out", "pairs") == 0
    assert "words" in capsys.readouterr().out
    assert Path("pairs/mitigations.md").exists() and Path("pairs/training.png").stat().st_size > 500


def test_paired_runs_without_a_baseline_is_refused_in_one_sentence(tmp_path, command, capsys):
    assert command("paired-runs", "--baseline", tmp_path / "none", "--mitigated", tmp_path / "other") == 2
    printed = capsys.readouterr().err
    assert "error: " in printed and "Traceback" not in printed
