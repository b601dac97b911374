import pandas as pd
import pytest
import yaml

from afterglow.reports.compare import compare


def run(folder, shift: float):
    """Two global plants, two phantoms and two local plants, two evaluations; only the last counts."""
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
                    rows.append(about | {"seed": seed, "measure": "auc.luminance", "value": 0.4 - shift})
    folder.mkdir()
    pd.DataFrame(rows).to_parquet(folder / "measurements.parquet")
    return folder


def test_compare_pools_plants_and_lists_detection_by_run(tmp_path):
    text = compare([run(tmp_path / "a", 0.0), run(tmp_path / "b", 0.2)])
    assert "| global  | 4 of 4 (51% to 100%)" in text and "| phantom | 0 of 4 (0% to 49%)" in text
    line = next(line for line in text.splitlines() if line.startswith("| global against"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["global against", "0.88, 0.88", "-", "-", "-"]
    for name, auc in (
        ("score_difference.summed", "0.80 [0.70, 0.90]"),
        ("luminance", "0.30 [0.20, 0.40]"),
        ("luminance.inverted", "0.70 [0.60, 0.80]"),
    ):
        assert f"| `{name}`".ljust(35) + f"| {auc} |" in text


def test_compare_counts_completed_plants_beside_assigned_ones(tmp_path):
    file = run(tmp_path / "a", 0.0) / "measurements.parquet"
    rows = pd.read_parquet(file)
    completed = rows[rows["measure"] == "plant_memorized"].assign(measure="plant_memorized.outpainted", value=0.0)
    pd.concat([rows, completed]).to_parquet(file)
    text = compare([tmp_path / "a"])
    assert "| global, by assignment   | 2 of 2" in text and "| global, by outpainting  | 0 of 2" in text


def test_compare_counts_controls_of_natural_families_apart(tmp_path):
    folder = run(tmp_path / "a", 0.0)
    rows = pd.read_parquet(folder / "measurements.parquet")
    about = rows[rows["step"] == 5].iloc[[0]].assign(kind="control", seed=-1)
    sizes = [(10, 1.0, 0.0), (11, 1.0, 0.0), (12, 2.0, 1.0), (13, 2.0, 1.0), (14, 2.0, 0.0)]
    controls = [
        about.assign(plant_id=number, measure=name, value=value)
        for number, size, copied in sizes
        for name, value in (("cluster_size", size), ("plant_memorized", copied))
    ]
    pd.concat([rows, *controls]).to_parquet(folder / "measurements.parquet")
    text = compare([folder])
    assert "| control        | 0 of 2 (" in text and "| control_family | 2 of 3 (" in text


def test_compare_without_measurements_raises(tmp_path):
    with pytest.raises(ValueError, match="The run folder .*empty' does not exist"):
        compare([tmp_path / "empty"])


def test_compare_of_different_recipes_raises(tmp_path):
    folders = [run(tmp_path / name, 0.0) for name in ("a", "b", "c")]
    for folder, seed, steps in zip(folders, (0, 1, 0), (5, 5, 6), strict=True):
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed, "trainer": {"max_steps": steps}}))
    assert "4 of 4" in compare(folders[:2])
    with pytest.raises(ValueError, match="'.*c' and '.*a' differ in trainer.max_steps: only seeds of one recipe"):
        compare(folders)
