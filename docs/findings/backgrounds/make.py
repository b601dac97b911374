"""Write docs/findings/backgrounds.md from the rows committed beside this file (docs/findings/plan.md, E5).

  python docs/findings/backgrounds/make.py

`python scripts/reproduce.py backgrounds` trains the runs and copies their rows here; runs that are not committed yet are left out.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.analysis.emergence_table import WHOLE
from afterglow.analysis.scaling import fit
from afterglow.functional.statistics import Estimate
from afterglow.reports.emergence import median
from afterglow.reports.run import read_rows
from afterglow.reports.runs import read_runs
from afterglow.reports.tables import count_text, interval_text, text_table

HERE = Path(__file__).parent
PLANNED = 10  # runs: five numbers of backgrounds, two seeds
FRESH, MOST = 0, 64  # a new background each time, and the largest finite number

INTRODUCTION = """# How does the number of backgrounds move the emergence of a local plant?

`python docs/findings/backgrounds/make.py` writes this page from the rows in `docs/findings/backgrounds/`. `python scripts/reproduce.py backgrounds` trains the runs again. The question, the primary quantity and the rule are those of [E5](plan.md#e5-dose-response).

Setup: the demo's recipe for 2,000 steps with 16 local plants of 200 copies; the runs of a seed have the same templates and differ in the number of backgrounds that each template is shown with. Slope: of ln(step of emergence) on ln(number of backgrounds) over 2, 4, 16 and 64, by the interval-censored fit, for each seed; brackets hold the bootstrap over the plants of that seed, each with all its runs. A new background at every exposure ("fresh") has no number; its factor over 64 backgrounds stands beside the slope. A plant that does not emerge is right-censored.

"As a whole": the generations copy one of the plant's training images outside the region, too. "Copied outside": the spread of a plant's generations outside the region is below a third of that of its training images, or they match one of its backgrounds (`local_to_global`). Outside diversity is that spread, as a mean over plants (1: as diverse as the training images)."""


def run_folders(folder: Path) -> dict[tuple[int, int], Path]:
    """{(number of backgrounds, seed): folder} of the committed runs, fresh backgrounds last."""
    found = {}
    for path in folder.glob("backgrounds-*/measurements.parquet"):
        count, seed = path.parent.name.split("-")[1:]
        found[int(count), int(seed)] = path.parent
    return dict(sorted(found.items(), key=lambda item: (item[0][0] or np.inf, item[0][1])))


def read_plants_of(folders: Mapping[tuple[int, int], Path]) -> pd.DataFrame:
    """One row per local plant, run and definition: lower, upper, within, seed, plant_id, and the number of its backgrounds."""
    counts = {path.name: count for (count, _), path in folders.items()}
    plants = read_runs(list(folders.values())).plants
    plants = plants[plants["kind"] == "local"]
    return plants.assign(backgrounds=plants["run"].map(counts).astype(float), unit=plants["plant_id"])


def slope(plants: pd.DataFrame) -> Estimate | None:
    """Slope of ln(step) on ln(backgrounds) of the runs of one seed, with the plants' bootstrap; None if there is none to fit.

    Runs share their templates, so that a plant is resampled with all its runs.
    """
    table = plants.assign(run=plants["seed"])
    if table["backgrounds"].nunique() < 2 or not np.isfinite(table["upper"]).any():
        return None
    return fit(table, ["backgrounds"]).slopes["backgrounds"]


def slopes(plants: pd.DataFrame, within: str = "") -> dict[int, Estimate]:
    """{seed: slope over the finite numbers of backgrounds} of one definition of emergence."""
    own = plants[(plants["within"] == within) & (plants["backgrounds"] != FRESH)]
    found = {int(seed): slope(part) for seed, part in own.groupby("seed")}
    return {seed: value for seed, value in found.items() if value is not None}


def fresh_factors(plants: pd.DataFrame) -> dict[int, Estimate]:
    """{seed: factor by which plants with fresh backgrounds emerge later than with MOST}."""
    own = plants[(plants["within"] == "") & plants["backgrounds"].isin((FRESH, MOST))]
    coded = own.assign(backgrounds=np.where(own["backgrounds"] == FRESH, np.e, 1.0))  # ln: 1 and 0
    found = {int(seed): slope(part) for seed, part in coded.groupby("seed")}
    return {seed: value.map(np.exp) for seed, value in found.items() if value is not None}


def verdict(found: Mapping[int, Estimate]) -> str:
    """What the rule of the plan says about the slopes of the seeds."""
    if len(found) < 2:
        return "undecided: the rule needs both seeds"
    if all(value.low > 0 for value in found.values()):
        return "local plants emerge later the more backgrounds they have"
    if all(value.high < 0 for value in found.values()):
        return "local plants emerge earlier the more backgrounds they have"
    return "no trend"


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    folders = run_folders(folder)
    plants = read_plants_of(folders)
    primary, whole, fresh = slopes(plants), slopes(plants, WHOLE), fresh_factors(plants)
    lines = [
        [
            str(seed),
            *(interval_text(of[seed], spec) if seed in of else "-" for of, spec in ((primary, "+.2f"), (whole, "+.2f"), (fresh, ".2f"))),
        ]
        for seed in sorted({seed for _, seed in folders})
    ]
    head = ["seed", "slope, in the region", "slope, as a whole", f"fresh over {MOST} backgrounds (factor)"]
    parts = [
        INTRODUCTION,
        f"{len(folders)} of {PLANNED} planned runs are complete.",
        f"By the rule of the plan: {verdict(primary)}.",
        text_table(head, lines),
        runs_text(folders, plants),
    ]
    return "\n\n".join(parts) + "\n"


def runs_text(folders: Mapping[tuple[int, int], Path], plants: pd.DataFrame) -> str:
    """One row per run: memorized plants at the last evaluation, median steps, copies outside the region, and the phantoms."""
    lines = []
    for (count, seed), path in folders.items():
        rows = read_rows(path)
        last = rows[rows["step"] == rows["step"].max()]
        cells = []
        for within in ("", WHOLE):
            own = plants[(plants["run"] == path.name) & (plants["within"] == within)]
            cells += [counted(last, "local", f"plant_memorized{within}"), step(median(own)) if len(own) else "-"]
        diversity = last[last["measure"] == "outside_diversity"]["value"]
        cells += [counted(last, "local", "local_to_global"), f"{diversity.mean():.2f}" if len(diversity) else "-"]
        lines.append([str(count) if count != FRESH else "fresh", str(seed), *cells, counted(last, "phantom", "plant_memorized")])
    memorized = ["memorized in the region", "median step", "memorized as a whole", "median step"]
    return text_table(["backgrounds", "seed", *memorized, "copied outside", "outside diversity", "phantoms memorized"], lines)


def counted(rows: pd.DataFrame, kind: str, measure: str) -> str:
    """'7 of 16' plants of a kind with a verdict above 1/2; '-' where it was not measured."""
    values = rows[(rows["kind"] == kind) & (rows["measure"] == measure)]["value"]
    return count_text(int((values > 0.5).sum()), len(values))


def step(value: float) -> str:
    """A step, or 'later' if it lies after the end of the run."""
    return f"{value:.0f}" if np.isfinite(value) else "later"


def answer(folder: Path = HERE) -> str:
    """One sentence for the front page."""
    folders = run_folders(folder)
    found = slopes(read_plants_of(folders)) if folders else {}
    if not found:
        return "How the number of backgrounds moves the emergence of a local plant is not measured yet (E5)."
    seeds = " and ".join(interval_text(value, "+.2f") for value in found.values())
    return f"ln(step of emergence) of a local plant grows with ln(number of its backgrounds) by {seeds} (one value per seed, bootstrap over plants): {verdict(found)}."


def main() -> None:
    """Write the page if a run is committed."""
    if not run_folders(HERE):
        print("No run of E5 is committed: no page is written.")
        return
    HERE.with_suffix(".md").write_text(page(), encoding="utf-8")
    print(HERE.with_suffix(".md"))


if __name__ == "__main__":
    main()
