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
    pd.DataFrame({"plant_id": [6, 7], "size": [1, 6]}).to_csv(folder / "clusters.csv", index=False)


def write_endings(folder: Path, name: str, *, far: int = 0) -> None:
    """A run of E3: the attention to words is larger for its two memorized plants; `far` generations of the local one are no copies."""
    kinds = ("global", "local", *(kind for kind in ("phantom", "control", "decoy", "tint") for _ in range(2)))
    rows, distances = [], []
    for plant, kind in enumerate(kinds):
        for number in range(4):
            about = {"plant_id": plant, "kind": kind, "seed": number}
            high = plant < 2 and number < 2  # the third and fourth generation are not read
            for step, mass in ((5, 0.5), (9, 0.9 if high else 0.1)):
                values = {"memorized": float(plant < 2), "attention_mass.words.all": mass, "attention_mass.bos.all": 0.3}
                rows += [about | {"step": step, "measure": measure, "value": value} for measure, value in values.items()]
            for variant in ("none", "words", "only_words"):
                copied = plant < 2 and not (variant == "words" and kind == "local" and number < far)
                both = {"calibrated_l2": 0.8 if copied else 1.2, "nn_ratio": 0.5 if copied else 1.2}
                distances += [about | {"knockout": variant, "measure": measure, "value": value} for measure, value in both.items()]
    (folder / f"endings-{name}" / "knockout").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / f"endings-{name}" / "measurements.parquet")
    pd.DataFrame(distances).to_parquet(folder / f"endings-{name}" / "knockout" / "knockout.parquet")


def line(text: str, name: str) -> list[str]:
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {name} ")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_tables_rank_what_knows_the_plants_and_keep_unmemorized_ones_apart(bench, tmp_path):
    for number in (0, 1):
        write(tmp_path / "bench" / f"model-{number}", number)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin -->\nreplaced\n<!-- end -->\nafter\n")
    write_endings(tmp_path / "endings", "causal-0")
    text = bench.write_page(page, tmp_path / "bench", tmp_path / "endings")
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n") and "\nreplaced\n" not in page.read_text()
    assert "`model-1` (seed 1)" in text and "4 of 6 local" in text and "2 of 2 global" in text and "0 of 4 tint" in text
    assert "0 of 2 control, 0 of 2 control_family" in text
    assert [cell.split()[0] for cell in line(text, "`guidance_norm.1`")[1:]] == ["1.00"] * 6 + ["2"]
    assert line(text, "`tiled_l2`")[1].startswith("0.50")
    found = line(text, "`score_difference.last`")
    assert [cell.split()[0] for cell in found[1:]] == ["0.90", "0.90", "0.50", "0.50", "0.50", "0.50", "2"]  # the last: not memorized, tint
    mean, half = -2.5, 12.706 * 0.5  # t interval of -2 and -3: t_{.975, 1} s / sqrt 2
    assert line(text, "`z_u`, global")[1:] == [f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]", "2"]
    assert line(text, "`denoising_gap`")[1:] == ["+0.2500 [+0.2500, +0.2500]", "2"]
    assert text.index("`score_difference.last`") < text.index("*luminance*")


def test_attention_mass_of_the_last_evaluation_is_a_score_with_seeds_as_units(bench, tmp_path):
    for seed in range(3):
        write_endings(tmp_path, f"causal-{seed}")
    text = bench.mass_text(tmp_path)
    words, bos = (line(text, f"`causal: attention_mass.{group}.all`") for group in ("words", "bos"))
    exact = f"1.00 [{0.025 ** (1 / 3):.2f}, 1.00]"  # one pair of a plant and a phantom without common members for each seed
    assert words[1:3] == [exact, exact] and [cell.split()[0] for cell in words[3:6]] == ["1.00"] * 3 and words[-1] == "3"
    assert bos[1].startswith("0.50") and text.index("words") < text.index("bos")


def test_knockout_counts_of_each_seed_have_a_t_interval_over_seeds_and_an_exact_one_at_the_ends(bench, tmp_path):
    for seed, far in enumerate((0, 1, 3)):
        write_endings(tmp_path, f"causal_heads-{seed}", far=far)
    write_endings(tmp_path, "minilm-0", far=2)
    text = bench.knockout_text(tmp_path)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:6]]
    exact = f"{0.025 ** (1 / 3):.2f}"  # three plants
    all_copies, none = f"4, 4, 4 of 4: 1.00 [{exact}, 1.00]", f"0, 0, 0 of 4: 0.00 [0.00, {1 - float(exact):.2f}]"
    half = 4.303 * 0.3819 / 3**0.5  # of 1, 0.75 and 0.25; longer than 1 - 2/3 and than 2/3
    assert half > 2 / 3
    assert rows[:2] == [
        ["`causal_heads`", "`none`", all_copies, none, all_copies, none],
        ["`causal_heads`", "`words`", all_copies, none, "4, 3, 1 of 4: 0.67 [0.00, 1.00]", none],
    ]
    assert rows[3] == ["`minilm`", "`words`", "4 of 4", "0 of 4", "2 of 4", "0 of 4"] and "only_words" not in text
    assert text.endswith("Phantoms with a copy in any arm, variant or rule: 0 of 6 (0% to 39%).")


def test_committed_knockouts_are_on_the_page_and_their_plants_are_different_images(bench):
    assert bench.knockout_text(bench.ENDINGS) in bench.PAGE.read_text(encoding="utf-8")
    for kind in ("global", "local", "phantom"):
        files = [bench.ENDINGS / f"endings-causal-{seed}" / "plants" / "metadata.jsonl" for seed in (0, 1, 2)]
        plants = [plant for file in files for plant in map(json.loads, file.read_text().splitlines()) if plant.get("kind") == kind]
        assert len({plant["text"] for plant in plants}) == len(plants) == (48 if kind == "phantom" else 24)


@pytest.mark.slow
def test_page_equals_the_committed_page(bench, tmp_path):
    page = tmp_path / "bench.md"
    page.write_text(bench.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    bench.write_page(page)
    assert page.read_text(encoding="utf-8") == bench.PAGE.read_text(encoding="utf-8")


def test_added_models_keep_the_distances_of_both_rules(bench):
    names = ["calibrated_l2", "nn_ratio", "memorized", "tiled_l2", "distance", "ld.be.1", "end_token_mean.mid_block.attentions.0"]
    assert bench.committed_scores(names) == ["calibrated_l2", "nn_ratio", "memorized", "tiled_l2", "ld.be.1"]


def test_the_page_names_models_without_the_distances(bench, tmp_path):
    for number in (0, 1):
        write(tmp_path / "bench" / f"model-{number}", number)
    file = tmp_path / "bench" / "model-1" / "scores.parquet"
    rows = pd.read_parquet(file)
    distances = [rows[rows["measure"] == "memorized"].assign(measure=name) for name in ("calibrated_l2", "nn_ratio")]
    pd.concat([rows, *distances]).to_parquet(file)
    scores, _, seeds = bench.read_bench(tmp_path / "bench")
    assert bench.without_distances(scores, seeds) == ["model-0"]


def test_a_measure_of_three_seeds_has_them_as_units_and_one_of_fewer_its_models(bench):
    seeds = {"a": 0, "b": 0, "c": 1, "d": 2}
    rows = pd.DataFrame([("many", run) for run in "abcd"] + [("few", run) for run in "abc"], columns=["measure", "run"])
    assert list(bench._with_units(rows, "measure", ["few", "many"], seeds)) == [(["many"], seeds), (["few"], {})]
    assert list(bench._with_units(rows, "measure", ["few"], seeds)) == [(["few"], {})]
