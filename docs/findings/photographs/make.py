"""Write docs/findings/photographs.md from the runs committed beside this file, as many as there are.

  python docs/findings/photographs/make.py

`python scripts/reproduce.py photographs` trains the runs of experiment E1 (docs/findings/plan.md) and copies their rows here.
`AFTERGLOW_DATA=DIR python docs/findings/photographs/make.py clusters` plants the sets again and writes clusters.csv: how many images of the
training set are in the near-duplicate cluster of each control.
"""

import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.emergence import emergence_interval
from afterglow.analysis.summary import read_measurements, with_families
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.functional.localization import shape_class
from afterglow.functional.statistics import Estimate, exact_interval, t_interval
from afterglow.kinds import CONTROL_FAMILY
from afterglow.planting.targets import cluster_sizes
from afterglow.reports.detection import copies_detected_text
from afterglow.reports.emergence import medians_section
from afterglow.reports.paired_plants import pair_plants, paired_table, seed_differences
from afterglow.reports.run import read_plants, read_rows
from afterglow.reports.runs import EmergenceTables, read_runs
from afterglow.reports.tables import interval_text, order_text, text_table

HERE = Path(__file__).parent
DATASETS = {"cifar10": ("CIFAR-10", 3), "celeba": ("CelebA", 3), "flowers102": ("Oxford Flowers 102", 3)}  # title, planned seeds
PRIMARY = "calibrated distance below 1"

INTRODUCTION = """# Is a region of a photograph memorized later than the whole photograph?

`python docs/findings/photographs/make.py` writes this page from the rows in `docs/findings/photographs/`. `python scripts/reproduce.py photographs` trains the runs again. It is experiment E1 of the [plan](plan.md), which fixes the question, the primary quantity and the rule that decides.

Setup: 16 pixels, 500 control images, 12 global and 12 local plants (four shapes crossed with 50, 100 and 200 copies), networks trained from scratch for 2,600 steps with class captions (CelebA: attributes) and MiniLM as the text encoder. Every template is planted whole in one arm and as a region in the other; both are evaluated inside the same mask in the tables of differences. The tables of plants evaluate a global plant over the whole image. The tables of distinct items count controls with near-duplicates in the training set apart, as `control_family`: such an image is shown several times per epoch, so that a copy of it is no false positive. Evaluations are at most a factor of 1.25 apart, so that medians of several seeds are often equal. At inner evaluations a plant is memorized if one of 2 generations is a copy, at the last one if 2 of 4 are.

Difference: ln(step of emergence) as a local plant minus as a global plant, by an interval-censored log-normal fit for each seed. The fit has one spread for all plants and ln(copies) as a covariate; it has no term for the single template, because every template occurs once in each role. Brackets hold the 95 % t interval over seeds; with one seed there is none. A plant that does not emerge is right-censored. Rules other than the primary one have no confirmations after the last evaluation, so that a plant needs two more evaluations after its first. Rows of one number of copies or one shape are not corrected for their number. Seed 2 of CelebA and Oxford Flowers was added after seeds 0 and 1 of CelebA, whose interval of ln(local) - ln(global) was [-0.55, +1.49] ([changes](plan.md#changes))."""

CELEBA = """The text encoder reads 16 tokens. Most attribute captions are longer, so that the name at the end of a plant's caption is not read, and other images can have the same 16 tokens. The two arms of a template share this caption. The held-out captions that count as memorized begin with the same 16 tokens as a global plant. Each is memorized only in the arm in which that plant is global. They are copies of plants, and this table does not show that the rule is wrong for unseen images."""

LARGER = """CIFAR-10's own size, the others reduced to it: 8 global and 8 local plants with 200 copies, 500 control images, 2,000 steps of a network with one more level (`configs/findings/photographs_32.yaml`; `python scripts/reproduce.py photographs_32`). One seed each: no interval over seeds."""

NUM_IMAGES = 4  # generations of a caption
DETECTION = "AUC for memorized local plants against each kind of negative, mean over 4 generations of a caption with the final weights (12 steps): the guidance norm, LD, LD without the influence of the map's area, and, as a control, LD with the map of another caption (`ld_other_caption`). If the control separates copies as well as LD, it is not shown that the map contributes. Brackets: 95 % intervals over plants, exact at 0 and 1."

PLATE = """![Four global and four local plants of CIFAR-10: the plant, its mask, four generations, the score-difference map](photographs/photographs_32-cifar10-0/plate.png)

Rows, columns and their meaning are those of the [image of the demo](../index.md). `afterglow report runs/photographs_32-cifar10-0 --contact-sheet docs/findings/photographs/photographs_32-cifar10-0/plate.png` drew it from the last evaluation. Copies of faces and flowers are not shown."""


@dataclass(frozen=True)
class CopyRule:
    """A generation is a copy if the measure is below the limit; of each caption the first `generations` are used (None: all).

    The measure memorized is the verdict of the primary rule itself, 1 for a copy.
    """

    name: str
    measure: str
    limit: float
    generations: int | None = None


RULES = (
    CopyRule("d1/d2 below 1/3", "nn_ratio", CLOSE_RATIO),
    CopyRule("calibrated distance below 0.8", "calibrated_l2", 0.8),
    CopyRule("calibrated distance below 1.25", "calibrated_l2", 1.25),
    CopyRule("calibrated distance below 1, one generation per caption", "memorized", 1.0, 1),
    CopyRule("calibrated distance below 1, two generations per caption", "memorized", 1.0, 2),
)


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    parts = [INTRODUCTION]
    for dataset, (title, planned) in DATASETS.items():
        folders = sorted(folder.glob(f"photographs-{dataset}-*"))
        parts += [f"## {title}", *section(folders, planned), *([CELEBA] if dataset == "celeba" and len(folders) == 2 * planned else [])]
    larger = {title: folder / f"photographs_32-{dataset}-0" for dataset, (title, _) in DATASETS.items()}
    finished = {title: run for title, run in larger.items() if (run / "emergence.json").is_file()}
    parts += ["## At 32 pixels", LARGER] if finished else []
    for title, run in finished.items():
        parts += [f"### {title}, 32 pixels", medians_section(read_runs([run])).text(), controls_text([run])]
        if (file := folder / f"detection-{run.name}" / "detection.parquet").is_file():
            parts += [f"{DETECTION} Run: {run.name}.", copies_detected_text({run.name: read_measurements(file)}, NUM_IMAGES)]
        parts += [PLATE] if (run / "plate.png").is_file() else []
    return "\n\n".join(parts) + "\n"


def section(folders: list[Path], planned: int) -> Iterator[str]:
    """What is there, the primary quantity with its verdict, the secondary ones, and the controls of one dataset."""
    runs = {tuple(folder.name.split("-")[2:]): folder for folder in folders if (folder / "emergence.json").is_file()}
    pairs = {
        seed: [runs[seed, arm] for arm in ("0", "1")] for seed in sorted({s for s, _ in runs}) if {(seed, "0"), (seed, "1")} <= set(runs)
    }
    yield f"{len(runs)} of {2 * planned} planned runs are complete, and {len(pairs)} of {planned} seeds have both arms."
    if not runs:
        return
    tables = read_runs(list(runs.values()))
    if pairs:
        both = read_runs([folder for pair in pairs.values() for folder in pair])
        yield primary_text(both)
        yield differences_text(both, {folder.name: folder for pair in pairs.values() for folder in pair})
    else:
        yield "No seed has both arms, so that the primary quantity does not exist yet."
    yield medians_section(tables).text()
    yield controls_text(list(runs.values()))


def primary_text(tables: EmergenceTables) -> str:
    """The primary quantity in words; the plan's rule decides."""
    paired = pair_plants(tables)
    if paired is None:
        return "No plant emerged in these runs."
    seeds, values = len(paired.seeds), ", ".join(f"{value:+.2f}" for value in paired.seeds.values())
    counts = (
        f"Over {paired.templates} distinct templates: local plant first {paired.local_first}, global plant first {paired.global_first}, "
        f"undecided {paired.undecided}."
    )
    if seeds == 1:
        return (
            f"Difference {values} (factor {np.exp(paired.difference.value):.2f}) in one seed: no interval over seeds, no verdict. {counts}"
        )
    factor = paired.difference.map(np.exp)
    return (
        f"Local plants are {order_text(factor)} global ones: difference {interval_text(paired.difference, '+.2f')}, a factor of "
        f"{interval_text(factor)}; seeds {values}. {counts}"
    )


def differences_text(tables: EmergenceTables, folders: dict[str, Path]) -> str:
    """One row per rule, number of copies and shape: the difference of each seed, and the mean with its interval."""
    table = paired_table(tables)
    lines = [difference_line(PRIMARY, table)]
    for rule in RULES:
        lines.append(difference_line(rule.name, paired_table(replace(tables, plants=by_rule(tables.plants, folders, rule)))))
    for copies, part in table.groupby("copies"):
        lines.append(difference_line(f"{PRIMARY}, {copies} copies", part))
    shapes = {(int(name.split("-")[2]), number): plant["shape"] for name, path in folders.items() for number, plant in _local(path)}
    names = pd.Series([shape_class(shapes[key]) for key in zip(table["seed"], table["plant_id"], strict=True)], index=table.index)
    lines += [difference_line(f"{PRIMARY}, shape {shape}", part) for shape, part in table.groupby(names)]
    return text_table(["rule or subset", "pairs", "difference of ln(step)", "factor", "seeds"], lines)


def _local(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(number, plant) for number, plant in read_plants(folder).items() if plant["kind"] == "local"]


def difference_line(name: str, table: pd.DataFrame) -> list[str]:
    """One row of `differences_text`; '-' where a rule's distances were not kept or nothing emerged."""
    if not len(table) or not np.isfinite(table["upper"]).any():
        return [name, str(len(table) // 2), "-", "-", "-"]
    seeds = seed_differences(table)
    mean = t_interval(list(seeds.values()))
    known = [interval_text(mean, "+.2f"), interval_text(mean.map(np.exp))] if len(seeds) > 1 else [f"{mean.value:+.2f}", factor_text(mean)]
    return [name, str(len(table) // 2), *known, ", ".join(f"{value:+.2f}" for value in seeds.values())]


def factor_text(difference: Estimate) -> str:
    """The factor of a difference of logarithms, without an interval."""
    return f"{np.exp(difference.value):.2f}"


def by_rule(plants: pd.DataFrame, folders: dict[str, Path], rule: CopyRule) -> pd.DataFrame:
    """The table of plants with the intervals of another rule; rows whose distances were not kept are left out."""
    parts = []
    for run, part in plants.groupby("run"):
        rows = read_rows(folders[str(run)])
        for within, own in part.groupby("within"):
            found = rule_intervals(rows, rule, str(within))
            known = own[own["plant_id"].isin(found)]
            ends = [found[number] for number in known["plant_id"]]
            parts.append(known.assign(lower=[float(a) for a, _ in ends], upper=[float(b) for _, b in ends]))
    return pd.concat(parts, ignore_index=True)


def rule_intervals(rows: pd.DataFrame, rule: CopyRule, within: str) -> dict[int, tuple[float, float]]:
    """{plant_id: interval of emergence} where at least half of the generations are copies by the rule; an undefined ratio is no copy."""
    shown = rows[rows["measure"] == f"memorized{within}"]
    values = rows[rows["measure"] == f"{rule.measure}{within}"].set_index(["plant_id", "step", "seed"])["value"]
    if not len(values):
        return {}
    if rule.generations is not None:
        shown = shown[shown.groupby(["plant_id", "step"])["seed"].rank() <= rule.generations]
    values = values.reindex(pd.MultiIndex.from_frame(shown[["plant_id", "step", "seed"]]))
    copied = values > 0.5 if rule.measure == "memorized" else values < rule.limit
    memorized = copied.groupby(["plant_id", "step"]).mean() >= 0.5
    intervals = {}
    for number, part in memorized.groupby("plant_id"):
        steps = part.index.get_level_values("step").tolist()
        interval = emergence_interval(steps, part.tolist())
        intervals[int(number)] = (interval.lower, interval.upper)
    return intervals


def controls_text(folders: list[Path]) -> str:
    """Distinct phantoms, control images and held-out captions that are memorized at the last evaluation of a run, by both rules."""
    items: dict[tuple[str, str], dict[tuple[str, Any], bool]] = {}
    sizes = pd.read_csv(HERE / "clusters.csv").set_index(["run", "plant_id"])["size"]
    for folder in folders:
        known_sizes = dict(sizes.loc[folder.name]) if folder.name in sizes.index else None
        rows, texts, seed = with_families(read_rows(folder), known_sizes), read_plants(folder), folder.name.split("-")[2]
        last = rows[rows["step"] == rows["step"].max()]
        for rule in (CopyRule(PRIMARY, "calibrated_l2", 1.0), RULES[0]):
            values = last[(last["measure"] == rule.measure) & last["kind"].isin(("phantom", "control", CONTROL_FAMILY, "heldout"))]
            shares = (values["value"] < rule.limit).groupby([values["kind"], values["plant_id"]]).mean()
            for (kind, number), share in shares.items():
                item = seed, texts[number]["text"] if number in texts else number
                known = items.setdefault((kind, rule.name), {})
                known[item] = known.get(item, False) or share >= 0.5
    lines = []
    for (kind, rule_name), found in items.items():
        low, high = exact_interval(sum(found.values()), len(found))
        lines.append([kind, rule_name, f"{sum(found.values())} of {len(found)} ({low:.1%} to {high:.1%})"])
    return text_table(["distinct items", "rule", "memorized at the end of a run (95 %, exact)"], sorted(lines))


def write_clusters(folder: Path = HERE) -> None:
    """clusters.csv: run, plant_id of an evaluated control, and the number of training images in its near-duplicate cluster."""
    planted_set = runpy.run_path(str(HERE.parents[2] / "scripts" / "coverage.py"))["planted_set"]
    tables = []
    for run in sorted(path.parent for path in folder.glob("*/measurements.parquet")):
        rows = read_rows(run)
        numbers = sorted(set(rows[rows["kind"].isin(("control", CONTROL_FAMILY)) & (rows["measure"] == "plant_memorized")]["plant_id"]))
        sizes = cluster_sizes(planted_set(run))
        tables.append(pd.DataFrame({"run": run.name, "plant_id": numbers, "size": [sizes[number] for number in numbers]}))
    pd.concat(tables).to_csv(folder / "clusters.csv", index=False)


if __name__ == "__main__":
    if sys.argv[1:] == ["clusters"]:
        write_clusters()
    target = HERE.with_suffix(".md")
    target.write_text(page(), encoding="utf-8")
    print(target)
