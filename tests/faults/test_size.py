"""Size of a long run with many plants."""

from pathlib import Path

import pytest

from afterglow.cli import main

ROOT = Path(__file__).parents[2]
FEW_STEPS = [  # a small model, evaluated after each of its steps: images and maps are noise, which takes the most bytes
    *("train", "--config", str(ROOT / "configs/demo.yaml"), "--config", str(ROOT / "configs/overlays/fast.yaml"), "--name", "size"),
    *("--model.unet.block_out_channels", "[8,16]", "--data.set_size", "200", "--checkpoint.every_n_train_steps", "50"),
    *("--trainer.max_steps", "99", "--monitor.step_ratio", "1.001", "--monitor.first_fraction", "0.01", "--monitor.seeds", "1"),
]
PLANTS = [
    *("--data.planting.num_global", "32", "--data.planting.num_local", "32"),
    *("--data.planting.num_decoys", "8", "--data.planting.num_tints", "8"),
]


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_run_of_100_evaluations_and_64_plants_is_small_and_says_what_its_page_leaves_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    main([*FEW_STEPS, *PLANTS])
    run = tmp_path / "runs" / "size"
    assert len(list((run / "maps").iterdir())) == 100
    files = [path for path in (run / "wandb").rglob("*") if path.is_file() and not path.is_symlink()]
    page, recorded = (run / "report.html").stat().st_size, sum(path.stat().st_size for path in files)
    print(f"wandb: {len(files)} files, {recorded / 1e6:.0f} MB; page: {page / 1e6:.1f} MB")
    assert recorded < 500e6 and page < 15e6
    assert "84 of the evaluations are left out of the slider and of the samples" in (run / "report.html").read_text(encoding="utf-8")
