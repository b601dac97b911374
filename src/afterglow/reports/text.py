"""Tables for a terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterglow.reports.cells import when
from afterglow.reports.kinds import KINDS

HEAD = ("kind", "plants", "memorized", "median step (95%)", "censored")


def emergence_table(folder: Path) -> str:
    """What emergence.json says, aligned; raises ValueError where a run has not come to its end."""
    path = Path(folder) / "emergence.json"
    if not path.is_file():
        raise ValueError(f"There is no emergence.json in '{folder}': the run has not come to its end.")
    found = json.loads(path.read_text(encoding="utf-8"))
    last = found["evaluation_steps"][-1]
    rows = [HEAD, *(_row(kind, found["kinds"][kind], last) for kind in KINDS if kind in found["kinds"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, spacing(found)])


def spacing(found: Mapping[str, Any]) -> str:
    """How far apart the probes stand: no step is known more closely."""
    steps, ratio = found["evaluation_steps"], found["probe_ratio"]
    apart = f", neighbors up to {ratio:.2f} times apart" if ratio else ""
    return f"Probes: {len(steps)}, from step {steps[0]} to {steps[-1]}{apart}."


def _row(kind: str, about: Mapping[str, Any], last: int) -> tuple[str, ...]:
    plants, memorized = about["plants"], about["memorized"]
    shown = f"{memorized} ({memorized / plants:.0%})"
    if "median" not in about:  # only the last probe looked at these
        return kind, str(plants), shown, "-", "-"
    return kind, str(plants), shown, when(about["median"], last).text.replace("–", "-"), str(about["censored"])
