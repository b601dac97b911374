import pandas as pd
import pytest
import yaml

from afterglow.reports.compare import compare


def run(folder, shift: float):
    """Two global plants, two phantoms and two local plants, two probes; only the last counts."""
    rows = []
    for step in (0, 5):
        for number, kind in enumerate(["global", "global", "phantom", "phantom", "local", "local"]):
            copied = float(step == 5 and kind != "phantom")
            about = {"step": step, "epoch": 0.0, "seconds": 0.0, "plant_id": number, "kind": kind, "caption": "a"}
            rows.append(about | {"seed": -1, "measure": "plant_memorized", "value": copied})
            for seed in (0, 1):
                rows.append(about | {"seed": seed, "measure": "guidance_norm.all", "value": 3 * copied + number + seed})
                if kind == "local":
                    rows.append(about | {"seed": seed, "measure": "auc.score_difference.summed", "value": 0.7 + shift})
    folder.mkdir()
    pd.DataFrame(rows).to_parquet(folder / "measurements.parquet")
    return folder


def test_plants_of_all_runs_are_pooled_and_runs_stand_apart_in_detection(tmp_path):
    text = compare([run(tmp_path / "a", 0.0), run(tmp_path / "b", 0.2)])
    assert "| global | 4 of 4 |" in text and "| phantom | 0 of 4 |" in text
    assert "| global against | 0.88, 0.88 | - | - | - |" in text
    assert "| `score_difference.summed` | 0.80 [0.70, 0.90] |" in text


def test_a_run_without_probes_is_named(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        compare([tmp_path / "empty"])


def test_runs_of_different_recipes_are_not_pooled(tmp_path):
    folders = [run(tmp_path / name, 0.0) for name in ("a", "b", "c")]
    for folder, seed, drop in zip(folders, (0, 1, 0), (None, None, "guidance_norm"), strict=True):
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed, "mitigation": {"drop": drop}}))
    assert "| global | 4 of 4 |" in compare(folders[:2])
    with pytest.raises(ValueError, match="'.*c' and '.*a' differ in mitigation.drop: only seeds of one recipe"):
        compare(folders)
