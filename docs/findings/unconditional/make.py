"""Write docs/findings/unconditional.md from the rows committed beside this file.

  python docs/findings/unconditional/make.py

`python scripts/reproduce.py unconditional` trains the runs and copies their rows here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import fisher_exact

from afterglow.analysis.emergence_table import emergence_of
from afterglow.analysis.order import local_over_global
from afterglow.analysis.summary import ALL_SEEDS, MEASUREMENT_COLUMNS, read_measurements
from afterglow.errors import AfterglowError
from afterglow.functional.distances import COPY_LIMITS
from afterglow.functional.statistics import Estimate, t_interval
from afterglow.reports.tables import count_text, interval_text, order_text, step_text, text_table

HERE = Path(__file__).parent
WAYS = {"assignment": "", "outpainting": "outpainted", "outpainting, held-out surroundings": "outpainted_fresh", "as a whole": "whole"}
PLANNED_SEEDS = 3
CAPTIONED, FAMILY = "generations of its caption", "natural"
ORDERS = ("region first", "same evaluation", "whole first", "region alone", "neither copied")
PLANT_WORDS = ("local plants are completed later than global plants, by outpainting", "local plants", "global ones", "memorized")
ASSIGNED_WORDS = ("local plants are copied later than global plants, by assignment", "local plants", "global ones", "copied")
FAMILY_WORDS = ("the shared region of a family is copied later than one of its whole images", "shared regions", "whole images", "copied")
MAP_KINDS = {"local": "local plants", "phantom": "phantoms (control)"}
TITLES = {
    "openmoji": "OpenMoji",
    "cifar10": "CIFAR-10",
    "celeba": "CelebA",
    "families": "natural families of CIFAR-10 automobiles without captions",
    "families_captioned": "natural families with captions",
}
LIMITS = {f"outpainted.{measure}": limit for measure, limit in COPY_LIMITS.items()}

INTRODUCTION = """# Local and global plants in a model without captions

`python docs/findings/unconditional/make.py` writes this page from the rows in `docs/findings/unconditional/`. `python scripts/reproduce.py unconditional` trains the runs again. The question, the primary quantity and the rule are those of [E4](plan.md#e4-unconditional-models-with-plants).

*Assignment*: each of 256 unconditional samples is matched to the nearest plant, and at least one of them copies it. *Outpainting*: at least half of the completions of the plant's unknown region copy it ([method](../methods.md#outpainting)); this is the primary quantity. Assignment asks whether the model draws the plant at all, outpainting whether the surroundings lead to it; those of a local plant differ from image to image. Phantoms show the false-positive rate of both; outpainting is also applied to control images, each of which is in the training set once, and to held-out images. Captions of plants are not committed.

*Natural families* are near-duplicates in the set itself; their shared region was not planted. It is asked whether the shared region is copied before one of the family's images as a whole."""
FAMILIES = (
    "The shared region was copied before, in the same interval between evaluations as, after, or without a whole image of the family:"
)


MAPS = "Maps that need no text, at the last evaluation: AUC inside the region of local plants on the generations that copy them ([method](../methods.md#emergence)). Mean over plants; values of the seeds in their order."
MAPS_CONTROL = (
    "As a control, the maps of generations that copy nothing are compared with the regions of the phantoms to which they are nearest."
)
MAPS_NO_CONTROL = "The control, maps compared with the regions of phantoms, was not measured in these runs."


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
        title = f"## {experiment}: {TITLES.get(experiment, data['dataset'])}, {data['resolution']} pixels, {len(names)} of {PLANNED_SEEDS} planned seeds ({seeds})"
        found = {name: emergence_of(runs[name][1]) for name in names}
        parts += [title, *verdicts(found)]
        if all(FAMILY in about["kinds"] for about in found.values()):
            parts += [FAMILIES, families_text(found)]
        parts.append(emergence_text(found))
        if all("outpainted" in about for about in found.values()):
            rules = rules_text({name: runs[name][1] for name in names})
            parts += ["Both rules: completions that are copies at the last evaluation:", rules]
            parts += [line for name in names for line in controls_lines(name, runs[name][1])]
        if len(maps := maps_text({name: runs[name][1] for name in names})):
            control = any("phantom" in set(of_maps(runs[name][1])["kind"]) for name in names)
            parts += [f"{MAPS} {MAPS_CONTROL if control else MAPS_NO_CONTROL}", maps]
    return "\n\n".join(parts) + "\n"


def verdicts(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the rule of the plan says about the primary quantity, and for plants the same by assignment beside it."""
    if any(FAMILY in about["kinds"] for about in found.values()):
        return [verdict({name: region_over_whole(about) for name, about in found.items()}, FAMILY_WORDS)]
    completed = {name: local_over_global(about["outpainted"]) for name, about in found.items()}
    assigned = {name: local_over_global(about) for name, about in found.items()}
    return [verdict(completed, PLANT_WORDS), verdict(assigned, ASSIGNED_WORDS)]


def verdict(factors: Mapping[str, Estimate | None], words: tuple[str, str, str, str]) -> str:
    """The factor of each seed, None where not both kinds emerged, and what the rule says about them."""
    what, first, second, middle = words
    known = {name: factor for name, factor in factors.items() if factor is not None}
    listed = "; ".join(f"seed {name.rpartition('-')[2]}: {interval_text(factor)}" for name, factor in known.items())
    missing = ", ".join(name.rpartition("-")[2] for name in factors if name not in known)
    none = (
        f"{'; ' if listed else ''}none for {'seeds' if ', ' in missing else 'seed'} {missing}, in which not both emerged" if missing else ""
    )
    text = f"Factor by which {what} (95 % over {first}): {listed}{none}."
    if len(known) < 2:
        return f"{text} With {len(known)} such seed{'' if len(known) == 1 else 's'} there is no interval over seeds, and the rule decides nothing."
    mean = t_interval([np.log(factor.value) for factor in known.values()]).map(np.exp)
    return f"{text} Mean and t interval over {len(known)} seeds {mean}: {first} are {order_text(mean, middle)} {second}."


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
        way = CAPTIONED if not key and "outpainted" not in about else way  # a model with captions is not outpainted
        for kind, summary in (about.get(key, {}) if key else about).get("kinds", {}).items():
            median = step_text(summary["median"], last) if "median" in summary else "-"
            yield [name, way, kind, count_text(summary["memorized"], summary["plants"]), median]


def rules_text(runs: Mapping[str, pd.DataFrame]) -> str:
    """Share of the completions of each kind that are copies by the calibrated distance and by d1/d2."""
    lines = []
    for name, rows in runs.items():
        last = rows[(rows["step"] == rows["step"].max()) & rows["measure"].isin(LIMITS)]
        copied = last.assign(copied=last["value"] < last["measure"].map(LIMITS))
        shares = copied.groupby(["kind", "measure"], sort=False)["copied"].agg(["sum", "count"])
        for kind in copied["kind"].unique():
            counts = [shares.loc[(kind, rule)] if (kind, rule) in shares.index else None for rule in LIMITS]
            lines.append([name, kind, *("-" if c is None else f"{c['sum']:.0f} of {c['count']:.0f}" for c in counts)])
    return text_table(["run", "kind", "calibrated distance below 1", "d1/d2 below 1/3"], lines)


def controls_lines(name: str, rows: pd.DataFrame) -> Iterator[str]:
    """Of one run: completed local plants against held-out images, and the held-out real images that pass as unconditional samples."""
    last = rows[rows["step"] == rows["step"].max()]
    completed = last[last["measure"] == "plant_memorized.outpainted"].groupby("kind")["value"].agg(["sum", "count"]).astype(int)
    if {"local", "heldout"} <= set(completed.index):
        (local, plants), (heldout, images) = completed.loc["local"], completed.loc["heldout"]
        p = fisher_exact([[local, plants - local], [heldout, images - heldout]]).pvalue
        more = "local plants" if local * images > heldout * plants else "held-out images"
        verdict = "not distinguishable" if p >= 0.05 else f"{more} more often"
        yield (
            f"`{name}`: {local} of {plants} local plants and {heldout} of {images} held-out images are completed: {verdict} (Fisher's exact test, "
            f"p = {p:.2g})."
        )
    if len(unseen := last[last["measure"].str.startswith("unseen.")]):
        passes = {
            measure: count_text(int((part["value"] < limit).sum()), len(part))
            for measure, limit in COPY_LIMITS.items()
            if len(part := unseen[unseen["measure"] == f"unseen.{measure}"])
        }
        phantoms = " So assignment, which asks for one of 256 generations, rests on its phantoms." if "phantom" in set(rows["kind"]) else ""
        yield (
            f"`{name}`: of real images that the model never saw, {passes['calibrated_l2']} pass the limit of an unconditional sample by "
            f"the calibrated distance and {passes['nn_ratio']} by d1/d2.{phantoms}"
        )


def of_maps(rows: pd.DataFrame) -> pd.DataFrame:
    """The AUCs of maps on single generations at the last evaluation."""
    return rows[(rows["step"] == rows["step"].max()) & rows["measure"].str.startswith("auc.") & (rows["seed"] != ALL_SEEDS)]


def maps_text(runs: Mapping[str, pd.DataFrame]) -> str:
    """AUC of each map on the generations of local plants and beside phantoms, the value of each seed and their t interval."""
    means = {}
    for name, rows in runs.items():
        plants = of_maps(rows).groupby(["measure", "kind", "plant_id"])["value"].mean()
        means[name] = plants.groupby(["measure", "kind"]).agg(["mean", "size"])
    measures = sorted({measure for found in means.values() for measure, _ in found.index})
    kinds = {kind: title for kind, title in MAP_KINDS.items() if any(kind == of for found in means.values() for _, of in found.index)}
    lines = [[measure.removeprefix("auc."), *(seeds_text(means.values(), measure, kind) for kind in kinds)] for measure in measures]
    return text_table(["map", *kinds.values()], lines) if lines else ""


def seeds_text(means: Iterable[pd.DataFrame], measure: str, kind: str) -> str:
    """'0.71, 0.65 [0.30, 1.00]': mean over plants for each seed, and the t interval over seeds, cut at 0 and 1."""
    values = [float(of_run.loc[(measure, kind), "mean"]) if (measure, kind) in of_run.index else np.nan for of_run in means]
    text, known = ", ".join("-" if np.isnan(value) else f"{value:.2f}" for value in values), [v for v in values if not np.isnan(v)]
    if len(known) < 2:
        return text
    estimate = t_interval(known)
    return f"{text} [{max(estimate.low, 0):.2f}, {min(estimate.high, 1):.2f}]"


def answer(folder: Path = HERE) -> str:
    """The answer for the front page: counts and factors of the plants of all sets, and the factors of the natural families."""
    if not any(folder.glob("*/measurements.parquet")):
        return "Plants in models without captions are not measured yet (E4)."
    experiments: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, (_, rows) in read_runs(folder).items():
        experiments.setdefault(name.rpartition("-")[0].removeprefix("unconditional-"), {})[name] = emergence_of(rows)
    of_families = {name: found for name, found in experiments.items() if any(FAMILY in about["kinds"] for about in found.values())}
    plants = {name: found for name, found in experiments.items() if name not in of_families}
    texts = [plants_answer(plants)] if plants else []
    for name, found in of_families.items():
        factors = [region_over_whole(about) for about in found.values()]
        texts.append(f"{TITLES.get(name, name)}: {factor_text(factors, 'shared regions', 'a whole image')}")
    return "; ".join(texts) + "."


def plants_answer(experiments: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Completed plants of all runs (the primary quantity), and the factor of each set by assignment."""
    runs = [about for found in experiments.values() for about in found.values()]
    completed = [about["outpainted"]["kinds"] for about in runs]
    counts = [f"{sum(c[k]['memorized'] for c in completed)} of {sum(c[k]['plants'] for c in completed)} {k}" for k in ("global", "local")]
    assigned = [
        f"{TITLES.get(name, name)}: {factor_text([local_over_global(about) for about in found.values()], 'local plants', 'global ones')}"
        for name, found in experiments.items()
    ]
    return (
        f"Without captions, outpainting completes {' and '.join(counts)} plants in {len(runs)} runs; by assignment: {'; '.join(assigned)}"
    )


def factor_text(factors: Sequence[Estimate | None], first: str, second: str) -> str:
    """'local plants are copied later than global ones (factor 1.70 [1.50, 1.90], 3 of 3 planned seeds)'; with fewer than two seeds no verdict."""
    known = [factor for factor in factors if factor is not None]
    count = "one seed" if len(factors) == 1 else f"{len(known)} of {PLANNED_SEEDS} planned seeds"
    if len(known) < 2:
        return f"{f'factor {known[0].value:.2f}' if known else 'no factor'} ({count}), which decides nothing"
    mean = t_interval([np.log(factor.value) for factor in known]).map(np.exp)
    return f"{first} are {order_text(mean, 'copied')} {second} (factor {interval_text(mean)}, {count})"


def main() -> None:
    """Write the page."""
    target = HERE.parent / "unconditional.md"
    target.write_text(page(), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
