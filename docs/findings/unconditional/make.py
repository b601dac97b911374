"""Write docs/findings/unconditional.md from the rows committed beside this file.

  python docs/findings/unconditional/make.py

`python scripts/reproduce.py unconditional` trains the runs and copies their rows here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from afterglow.analysis.emergence_table import emergence_of
from afterglow.analysis.order import local_over_global
from afterglow.analysis.summary import MEASUREMENT_COLUMNS, read_measurements
from afterglow.errors import AfterglowError
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.functional.statistics import Estimate, t_interval
from afterglow.reports.tables import count_text, interval_text, step_text, text_table

HERE = Path(__file__).parent
WAYS = {"assignment": "", "outpainting": "outpainted", "outpainting, held-out surroundings": "outpainted_fresh", "as a whole": "whole"}
FAMILY = "natural"
ORDERS = ("region first", "same evaluation", "whole first", "region alone", "neither copied")
PLANT_WORDS = ("local plants are later than global plants, by outpainting", "local plants", "global ones", "memorized")
FAMILY_WORDS = ("the shared region of a family is copied later than one of its whole images", "shared regions", "whole images", "copied")
RULES = ("outpainted.calibrated_l2", "outpainted.nn_ratio")

INTRODUCTION = """# Local and global plants in a model without captions

`python docs/findings/unconditional/make.py` writes this page from the rows in `docs/findings/unconditional/`. `python scripts/reproduce.py unconditional` trains the runs again. The question, the primary quantity and the rule are those of [E4](plan.md#e4-unconditional-models-with-plants).

*Assignment*: at least one of 256 undirected generations copies the plant. *Outpainting*: at least half of the completions of the plant's unknown region copy it ([method](../methods.md#outpainting)); this is the primary quantity. Phantoms and held-out images show the false-positive rate of both. Captions of plants are not committed.

*Natural families* are near-duplicates in the set itself; their shared region was not planted. It is asked whether the shared region is copied before one of the family's images as a whole."""
FAMILIES = (
    "The shared region was copied before, in the same interval between evaluations as, after, or without a whole image of the family:"
)


def read_runs(folder: Path) -> dict[str, tuple[Mapping[str, Any], pd.DataFrame]]:
    """{run: (configuration, rows)} of the committed runs."""
    files = sorted(folder.glob("*/measurements.parquet"))
    if not files:
        raise AfterglowError(f"There are no runs in '{folder}': `python scripts/reproduce.py unconditional` makes them.")
    configs = {file: yaml.safe_load((file.parent / "config.yaml").read_text(encoding="utf-8")) for file in files}
    return {file.parent.name: (configs[file], read_measurements(file, MEASUREMENT_COLUMNS)) for file in files}


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    runs = read_runs(folder)
    experiments: dict[str, list[str]] = {}
    for name in runs:
        experiments.setdefault(name.rpartition("-")[0], []).append(name)
    parts = [INTRODUCTION]
    for experiment, names in experiments.items():
        data = runs[names[0]][0]["data"]["init_args"]
        seeds = ", ".join(name.rpartition("-")[2] for name in names)
        noun = "seed" if len(names) == 1 else "seeds"
        title = f"## {experiment}: {data['dataset']}, {data['resolution']} pixels, {len(names)} {noun} ({seeds})"
        found = {name: emergence_of(runs[name][1]) for name in names}
        parts += [title, verdict(found)]
        if all(FAMILY in about["kinds"] for about in found.values()):
            parts += [FAMILIES, families_text(found)]
        parts.append(emergence_text(found))
        if all("outpainted" in about for about in found.values()):
            rules = rules_text({name: runs[name][1] for name in names})
            parts += ["Both rules, share of the completions at the last evaluation:", rules]
    return "\n\n".join(parts) + "\n"


def verdict(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The factor local over global (a family: region over whole) of each seed, and what the rule of the plan says."""
    families = any(FAMILY in about["kinds"] for about in found.values())
    known = {name: factor for name, about in found.items() if (factor := (region_over_whole if families else completed_order)(about))}
    what, first, second, middle = FAMILY_WORDS if families else PLANT_WORDS
    listed = "; ".join(f"seed {name.rpartition('-')[2]}: {interval_text(factor)}" for name, factor in known.items())
    text = f"Factor by which {what} (95 % over {'families' if families else 'plants'}): {listed or 'none emerged'}."
    if len(known) < 2:
        return f"{text} With {len(known)} such seed{'' if len(known) == 1 else 's'} there is no interval over seeds, and the rule decides nothing."
    mean = t_interval([np.log(factor.value) for factor in known.values()]).map(np.exp)
    order = "later" if mean.low > 1 else "earlier" if mean.high < 1 else None
    rule = f"{first} are {middle} {order} than {second}" if order else "not distinguishable"
    return f"{text} Mean and t interval over {len(known)} seeds {mean}: {rule}."


def completed_order(about: Mapping[str, Any]) -> Estimate | None:
    """Factor by which local plants are completed later than global ones."""
    return local_over_global(about["outpainted"]) if "outpainted" in about else None


def region_over_whole(about: Mapping[str, Any]) -> Estimate | None:
    """Factor by which the shared region of a family is copied later than one of its whole images; families are resampled."""
    region, whole = about["kinds"][FAMILY], about.get("whole", {}).get("kinds", {}).get(FAMILY)
    return local_over_global({"kinds": {"local": region, "global": whole}}) if whole else None


def families_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each run: in how many families the shared region was copied before, with, after or without the whole image."""
    rows = []
    for name, about in found.items():
        region = about["kinds"][FAMILY]["intervals"]
        whole = about.get("whole", {}).get("kinds", {}).get(FAMILY, {}).get("intervals", {})
        orders = [order(region[number], whole.get(number, [0, None])) for number in region]
        rows.append([name, str(len(region)), *(count_text(orders.count(kind), len(orders)) for kind in ORDERS)])
    return text_table(["run", "families", *ORDERS], rows)


def order(region: Sequence[float | None], whole: Sequence[float | None]) -> str:
    """Which of ORDERS two intervals of emergence [lower, upper] have; an upper end of None is a censored one."""
    if region[1] is None:
        return "neither copied" if whole[1] is None else "whole first"
    if whole[1] is None:
        return "region alone"
    return "region first" if region[1] <= whole[0] else "whole first" if whole[1] <= region[0] else "same evaluation"


def emergence_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each run, way and kind."""
    rows = [row for name, about in found.items() for row in _emergence_rows(name, about)]
    return text_table(["run", "by", "kind", "memorized at the last evaluation (95 %)", "median step of emergence (95 %)"], rows)


def _emergence_rows(name: str, about: Mapping[str, Any]) -> Iterator[list[str]]:
    last = about["evaluation_steps"][-1]
    for way, key in WAYS.items():
        for kind, summary in (about.get(key, {}) if key else about).get("kinds", {}).items():
            median = step_text(summary["median"], last) if "median" in summary else "-"
            yield [name, way, kind, count_text(summary["memorized"], summary["plants"]), median]


def rules_text(runs: Mapping[str, pd.DataFrame]) -> str:
    """Share of the completions of each kind that are copies by the calibrated distance and by d1/d2."""
    lines = []
    for name, rows in runs.items():
        last = rows[(rows["step"] == rows["step"].max()) & rows["measure"].isin(RULES)]
        copied = last.assign(copied=last["value"] < last["measure"].map(dict(zip(RULES, (1.0, CLOSE_RATIO), strict=True))))
        shares = copied.groupby(["kind", "measure"], sort=False)["copied"].agg(["sum", "count"])
        for kind in copied["kind"].unique():
            counts = [shares.loc[(kind, rule)] if (kind, rule) in shares.index else None for rule in RULES]
            lines.append([name, kind, *("-" if c is None else f"{c['sum']:.0f} of {c['count']:.0f}" for c in counts)])
    return text_table(["run", "kind", "calibrated distance below 1", "d1/d2 below 1/3"], lines)


def main() -> None:
    """Write the page."""
    target = HERE.parent / "unconditional.md"
    target.write_text(page(), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
