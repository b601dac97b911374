"""The tables of the leaderboard on rows whose result is known."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "bench.py")))


def write(folder: Path, seed: int) -> None:
    """One global and three local plants, of which the last is not memorized, and two of each negative; one detector knows them."""
    kinds = ["global", "local", "local", "local", *(kind for kind in ("phantom", "control", "decoy", "tint") for _ in range(2))]
    rows, maps = [], []
    for plant, kind in enumerate(kinds):
        copied = plant < 3
        for number in (0, 1):
            about = {"plant_id": plant, "kind": kind, "seed": number}
            score = {"memorized": float(copied), "guidance_norm.1": 2.0 if copied else 1.0, "tiled_l2": 0.5}
            rows += [about | {"measure": name, "value": value} for name, value in score.items()]
        if kind in ("local", "phantom", "tint"):
            known = {"score_difference.last": 0.9 if copied else 0.5, "luminance": 0.6}
            maps += [
                {"plant_id": plant, "kind": kind, "shape": "box", "map": m, "auc": v, "permuted_auc": 0.5, "iou": v}
                for m, v in known.items()
            ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "scores.parquet")
    pd.DataFrame(maps).to_parquet(folder / "maps.parquet")
    numbers = {("z_u", "global"): -2.0 - seed, ("denoising_gap", "control"): 0.25}
    pd.DataFrame([(*key, value) for key, value in numbers.items()], columns=["measure", "kind", "value"]).to_parquet(
        folder / "whole.parquet"
    )
    (folder / "bench.json").write_text(json.dumps({"seed": seed}))


def line(text: str, name: str) -> list[str]:
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {name} ")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_tables_rank_what_knows_the_plants_and_keep_unmemorized_ones_apart(bench, tmp_path):
    for number in (0, 1):
        write(tmp_path / "bench" / f"model-{number}", number)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin -->\nold\n<!-- end -->\nafter\n")
    text = bench.write_page(page, tmp_path / "bench")
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n") and "old" not in page.read_text()
    assert "`model-1` (seed 1)" in text and "4 of 6 local" in text and "2 of 2 global" in text and "0 of 4 tint" in text
    assert [cell.split()[0] for cell in line(text, "`guidance_norm.1`")[1:]] == ["1.00"] * 6 + ["2"]
    assert line(text, "`tiled_l2`")[1].startswith("0.50")
    found = line(text, "`score_difference.last`")
    assert [cell.split()[0] for cell in found[1:]] == ["0.90", "0.90", "0.50", "0.50", "0.50", "0.50", "2"]  # the last: not memorized, tint
    mean, half = -2.5, 12.706 * 0.5  # t interval of -2 and -3: t_{.975, 1} s / sqrt 2
    assert line(text, "`z_u`, global")[1:] == [f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]", "2"]
    assert line(text, "`denoising_gap`")[1:] == ["+0.2500 [+0.2500, +0.2500]", "2"]
    assert text.index("`score_difference.last`") < text.index("*luminance*")


def test_a_measure_of_three_seeds_has_them_as_units_and_one_of_fewer_its_models(bench):
    seeds = {"a": 0, "b": 0, "c": 1, "d": 2}
    rows = pd.DataFrame([("many", run) for run in "abcd"] + [("few", run) for run in "abc"], columns=["measure", "run"])
    assert list(bench._with_units(rows, "measure", ["few", "many"], seeds)) == [(["many"], seeds), (["few"], {})]
    assert list(bench._with_units(rows, "measure", ["few"], seeds)) == [(["few"], {})]
