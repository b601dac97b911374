"""Several runs as one table: what held at their last probes, pooled over plants."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from afterglow.analysis.summary import NEGATIVES, of_plants, read_measurements
from afterglow.functional.roc import detection_metrics as detection
from afterglow.functional.statistics import bootstrap_interval, wilson_interval
from afterglow.reports.run import setting

KINDS = ("global", "local", "natural", "control", "phantom", "decoy", "tint")
MUST_AGREE = (
    "model",
    "data",
    "mitigation",
    "monitor.early_stop",
    "trainer.max_steps",
)  # copies in runs of other recipes are other findings
REGION_KINDS = ("local", "phantom", "tint", "decoy")
TRIVIAL = ("auc.all_ones", "auc.centered_gaussian", "auc.luminance", "auc.local_contrast")


def last_probes(folders: Sequence[Path]) -> pd.DataFrame:
    """Mean over seeds of every plant at each run's last probe; ValueError names a run without probes, and runs of different recipes."""
    frames, recipes = [], {}
    for folder in folders:
        path = folder / "measurements.parquet"
        if not path.is_file():
            raise ValueError(f"There are no probes in '{folder}': measurements.parquet is missing.")
        if (folder / "config.yaml").is_file():
            recipes[folder] = _recipe(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        rows = read_measurements(path)
        frames.append(of_plants(rows[rows["step"] == rows["step"].max()]).assign(run=folder.name))
    for folder, recipe in recipes.items():
        first = next(iter(recipes))
        differ = sorted(name for name in recipe.keys() & recipes[first].keys() if recipe[name] != recipes[first][name])
        if differ:
            raise ValueError(f"'{folder}' and '{first}' differ in {', '.join(differ)}: only seeds of one recipe are pooled.")
    return pd.concat(frames, ignore_index=True)


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names and values."""

    def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from leaves(f"{name}.{key}", inner)
        else:
            yield name, value

    return {leaf: value for name in MUST_AGREE for leaf, value in leaves(name, setting(config, name))}


def compare(folders: Sequence[Path], *, every_map: bool = False) -> str:
    """Markdown: memorized fractions, detection of each run, and localization by the maps that matter (or by every map)."""
    plants = last_probes(folders)
    parts = [_memorized(plants), _detection(plants, "guidance_norm.all"), _maps(plants, every_map)]
    return "\n\n".join(parts)


def _memorized(plants: pd.DataFrame) -> str:
    lines = ["| kind | memorized | 95 % interval |", "|---|---|---|"]
    for kind in KINDS:
        seen = plants[(plants["measure"] == "plant_memorized") & (plants["kind"] == kind)]["value"]
        if len(seen):
            low, high = wilson_interval(seen.sum(), len(seen))
            lines.append(f"| {kind} | {int(seen.sum())} of {len(seen)} | {low:.0%} to {high:.0%} |")
    return "\n".join(lines)


def _detection(plants: pd.DataFrame, score: str) -> str:
    lines = [f"| AUC of `{score}`, by run | " + " | ".join(NEGATIVES) + " |", "|---|" + "---|" * len(NEGATIVES)]
    for kind in ("global", "local"):
        cells = []
        for negative in NEGATIVES:
            found = []
            for _, run in plants[plants["measure"] == score].groupby("run"):
                values = [run[run["kind"] == name]["value"].to_numpy() for name in (kind, negative)]
                if all(map(len, values)):
                    found.append(f"{detection(*values)['auc']:.2f}")
            cells.append(", ".join(found) or "-")
        lines.append(f"| {kind} against | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _maps(plants: pd.DataFrame, every_map: bool) -> str:
    names = sorted(name for name in plants["measure"].unique() if name.startswith("auc."))
    if not every_map:
        names = [name for name in names if name in TRIVIAL or "score_difference" in name or ".last.first_eos." in name]
    kinds = [kind for kind in REGION_KINDS if kind in set(plants[plants["measure"].isin(names)]["kind"])]
    lines = ["| AUC of the map, mean over plants | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name in names:
        cells = [_mean(plants[(plants["measure"] == name) & (plants["kind"] == kind)]["value"].to_numpy()) for kind in kinds]
        lines.append(f"| `{name.removeprefix('auc.')}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    low, high = bootstrap_interval(values)
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"
