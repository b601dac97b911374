"""Write docs/findings/photograph_sizes.md from the rows committed beside this file (docs/findings/plan.md, E2).

  python docs/findings/photograph_sizes/make.py

`python scripts/reproduce.py photograph_sizes` trains the runs and copies their rows here; runs that are not committed yet are left out.
`python docs/findings/photograph_sizes/make.py agreement` compares the generations in runs/ of the two models of a size: agreement.csv.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from afterglow.analysis.scaling import CLOSE_SHARE, Law, agreement, compare_laws
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.functional.statistics import Estimate, t_interval
from afterglow.generations import Generations, parts_of
from afterglow.reports.emergence import growth_departs
from afterglow.reports.runs import read_runs
from afterglow.reports.tables import count_text, text_table

HERE = Path(__file__).parent
DATASETS = {"celeba": "CelebA", "flowers102": "Oxford Flowers 102"}
PLANNED = 6  # runs of a dataset: three sizes, two seeds

INTRODUCTION = """# How does the onset of copying depend on the number of photographs?

`python docs/findings/photograph_sizes/make.py` writes this page from the rows in `docs/findings/photograph_sizes/`. `python scripts/reproduce.py photograph_sizes` trains the runs again. The question, the primary quantity and the rule are those of [E2](plan.md#e2-set-size-on-photographs).

Setup: 16 pixels, no plants, no captions, one image per near-duplicate cluster, so that n counts clusters; 128 generations with 12 sampling steps at each evaluation. tau_mem: the step at which 10 % of the generations are copies, interpolated between evaluations at most a factor of 1.25 apart. The sets of the two seeds of one n are disjoint, and 256 generations of each model with 25 sampling steps are also compared with the other's set: what they "copy" there they never saw, and a value of n is not used for a rule by which this share reaches 10 % in any seed. Unseen images are real images held out of both sets under the same rule. The slope of a seed is the least-squares slope of ln(tau_mem) over ln(n), over the values of n at which its model reaches 10 %; brackets hold the 95 % t interval over seeds. The laws are fitted to the intervals between evaluations of all seeds, and models that do not reach 10 % are right-censored; each law has three parameters, its spread included, but the offset t0 of the linear law cannot be negative. Where t0 is 0, the comparison is one of the exponent 1 against a free exponent."""


@dataclass(frozen=True)
class CopyLimit:
    """A generation is a copy if the measure is below the limit; column: its tau_mem in the table of runs."""

    name: str
    column: str
    measure: str
    limit: float


RULES = (
    CopyLimit("calibrated distance below 1", "calibrated", "calibrated_l2", 1.0),
    CopyLimit("d1/d2 below 1/3", "tau_mem", "nn_ratio", CLOSE_RATIO),
)


def read_dataset(folder: Path, dataset: str) -> pd.DataFrame:
    """One row per committed run of a dataset: the table of `read_runs`, ordered by n and seed; empty without runs."""
    found = [path.parent for path in folder.glob(f"photograph_sizes-{dataset}-*/measurements.parquet")]
    return read_runs(sorted(found)).runs.sort_values(["n", "seed"], ignore_index=True) if found else pd.DataFrame()


def copies(folder: Path, run: str, rule: CopyLimit, file: str = "extract.parquet") -> tuple[int, int] | None:
    """(copies, images) of an extraction or of its unseen images; None where it is not committed."""
    path = folder / f"extract-{run}" / file
    if not path.is_file():
        return None
    values = pd.read_parquet(path, columns=[rule.measure])[rule.measure]
    return int((values < rule.limit).sum()), len(values)


def usable(folder: Path, runs: pd.DataFrame, rule: CopyLimit) -> pd.DataFrame:
    """The runs of the set sizes at which the model of the disjoint set stays below 10 % by the rule in every committed seed."""
    kept = []
    for n, part in runs.groupby("n"):
        passing = [copies(folder, f"{run}-disjoint", rule) for run in part["run"]]
        if all(count is not None and count[0] < CLOSE_SHARE * count[1] for count in passing):
            kept.append(n)
    used = runs[runs["n"].isin(kept)]
    return used.assign(tau=used[rule.column], lower=used[f"{rule.column}_lower"], upper=used[f"{rule.column}_upper"])


@dataclass(frozen=True)
class Scaling:
    """How tau_mem by one rule depends on n: the slope of each seed, the two laws (None with fewer than three sizes), and the verdict.

    sizes: the values of n that are used; reached: those of them at which a model reaches 10 %.
    """

    sizes: list[int]
    reached: list[int]
    slopes: dict[int, float]
    laws: tuple[Law, Law] | None

    @property
    def range_text(self) -> str:
        """'n = 32 to 128'."""
        return f"n = {self.reached[0]} to {self.reached[-1]}"

    @property
    def mean(self) -> Estimate | None:
        """Mean slope with its t interval; None with fewer than two seeds."""
        return t_interval(list(self.slopes.values())) if len(self.slopes) > 1 else None

    @property
    def verdict(self) -> str:
        """What the rule of the plan says."""
        proven = None if self.mean is None else growth_departs(self.mean, 1.0, self.laws)
        return "is undecided" if proven is None else "departs from 1" if proven else "is not distinguishable from 1"


def scaling(table: pd.DataFrame) -> Scaling:
    """Slopes and laws of the usable runs. table: columns n, seed, tau, lower, upper."""
    sizes = sorted(map(int, table["n"].unique()))
    emerged = table["upper"].notna() & np.isfinite(table["upper"])
    of_seeds = {int(seed): np.log(part[["n", "tau"]].to_numpy(float)).T for seed, part in table[emerged].groupby("seed")}
    slopes = {seed: float(np.polyfit(n, tau, 1)[0]) for seed, (n, tau) in of_seeds.items() if len(np.unique(n)) > 1}
    laws = compare_laws(table, "n") if len(sizes) > 2 and table[emerged]["n"].nunique() > 1 else None
    return Scaling(sizes, sorted(map(int, table[emerged]["n"].unique())), slopes, laws)


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    parts = [INTRODUCTION]
    for dataset, title in DATASETS.items():
        parts += [f"## {title}", *section(folder, read_dataset(folder, dataset))]
    return "\n\n".join(parts) + "\n"


def section(folder: Path, runs: pd.DataFrame) -> Iterator[str]:
    """What is there, the verdicts, the times and the false-positive rates of one dataset."""
    yield f"{len(runs)} of {PLANNED} planned runs are complete."
    if runs.empty:
        return
    yield scalings_text(folder, runs)
    for rule in RULES:
        found = scaling(usable(folder, runs, rule))
        if found.slopes:
            bounds = [
                f"At {n} no model reached 10 % within {runs[runs['n'] == n]['steps'].max()} steps; the laws predict "
                f"{' and '.join(f'{law.step(n):.0f}' for law in found.laws or ())}."
                for n in found.sizes
                if n not in found.reached
            ]
            rests = f"rests on {len(found.reached)} sizes and {len(found.slopes)} seeds"
            yield " ".join([f"The slope by {rule.name} is over {found.range_text} and {rests}.", *bounds])
    yield times_text(runs)
    yield false_positives_text(folder, runs)
    yield (
        f"tau_gen exists in {int(runs['tau_gen'].notna().sum())} of {len(runs)} runs, those whose held-out loss has a plateau "
        "([definition](../methods.md#scaling))."
    )
    yield from agreement_text(folder, runs)


def scalings_text(folder: Path, runs: pd.DataFrame) -> str:
    """One row per rule: the sizes that are used, the slope, the two laws and the verdict."""
    lines = []
    for rule in RULES:
        found = scaling(usable(folder, runs, rule))
        values = ", ".join(f"{slope:.2f}" for slope in found.slopes.values())
        slope = values if found.mean is None else f"{found.mean.text()} (seeds: {values})"
        laws = [f"{law_text(law)}: {law.negative_log_likelihood:.1f}" for law in found.laws or ()] or ["-", "-"]
        lines.append([rule.name, ", ".join(map(str, found.sizes)) or "none", slope or "-", *laws, found.verdict])
    head = ["tau_mem by", "n used", "slope of ln(tau_mem) on ln(n)", "power law: minus log-likelihood", "linear law", "the exponent"]
    return text_table(head, lines)


def law_text(law: Law) -> str:
    """'131 + 43 n' or '12 n^0.78'."""
    value = law.parameters
    return f"{value['t0']:.0f} + {value['c']:.3g} n" if "t0" in value else f"{value['c']:.3g} n^{value['a']:.2f}"


def times_text(runs: pd.DataFrame) -> str:
    """One row per run: tau_mem by both rules in steps and in exposures of an image."""
    lines = []
    for run in runs.itertuples():
        cells = []
        for rule in RULES:
            step = getattr(run, rule.column)
            later = not np.isfinite(step)
            cells += [f"after {run.steps}" if later else f"{step:.0f}", "-" if later else f"{step * run.batch / run.n:.0f}"]
        lines.append([str(int(run.n)), str(run.seed), *cells])
    return text_table(["n", "seed", *(text for rule in RULES for text in (f"tau_mem by {rule.name} (steps)", "exposures"))], lines)


def neighbors_text(folder: Path, run: str) -> str:
    """The number of other clusters that calibrate the distances of an extraction; '-' where it is not committed."""
    path = folder / f"extract-{run}" / "extract.parquet"
    if not path.is_file():
        return "-"
    used = pd.read_parquet(path, columns=["neighbors"])["neighbors"]
    return str(used.min()) if used.min() == used.max() else f"{used.min()} to {used.max()}"


def false_positives_text(folder: Path, runs: pd.DataFrame) -> str:
    """One row per run and rule: the clusters that calibrate, copies of its model and of the disjoint set's, and among unseen images."""
    lines = []
    for run in runs.itertuples():
        other = f"{run.run}-disjoint"
        for rule in RULES:
            found = [copies(folder, *about) for about in ((run.run, rule), (other, rule), (other, rule, "unseen.parquet"))]
            used = neighbors_text(folder, run.run) if rule.measure == "calibrated_l2" else "-"
            lines.append(
                [str(int(run.n)), str(run.seed), rule.name, used, *("-" if c is None else count_text(*c, digits=1) for c in found)]
            )
    own = ["generations at the end", "by the model of a disjoint set (false positives)", "unseen images that pass"]
    return text_table(["n", "seed", "copies by", "other clusters that calibrate it", *own], lines)


AGREEMENT = """Agreement: the cosine similarity of the images that the two models of a size generate from the same noise, after the mean of all generations is removed ([definition](../methods.md#scaling)); their training sets are disjoint, so that models that generalize agree. Beside it the same with the noises of one model in another order. Brackets hold the 2.5 and 97.5 % quantiles of 256 noises, of one pair of models."""


def agreement_text(folder: Path, runs: pd.DataFrame) -> Iterator[str]:
    """One row per set size of the dataset whose agreement is committed."""
    path = folder / "agreement.csv"
    names = set(runs["run"])
    rows = [row for row in pd.read_csv(path).itertuples() if row.run in names] if path.is_file() else []
    if rows:
        cells = [[str(row.n), *(f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in (row[3:6], row[6:9]))] for row in rows]
        yield AGREEMENT
        yield text_table(["n", "agreement", "other noises"], cells)


def write_agreement(runs: Path, folder: Path = HERE) -> None:
    """agreement.csv of all pairs of extractions in a folder of runs: the first run, n, and both cosines: mean and two quantiles.

    Rows of pairs whose generations are not at hand stay.
    """
    rows = []
    for path in sorted(runs.glob("extract-photograph_sizes-*-0")):
        if not (pair := runs / f"{path.name[:-1]}1").is_dir():
            continue
        own, other = _images(path), _images(pair)
        cosines = agreement(own, other), agreement(own, np.roll(other, 1, axis=0))
        numbers = [number for values in cosines for number in (values.mean(), *np.quantile(values, [0.025, 0.975]))]
        rows.append([path.name.removeprefix("extract-"), int(path.name.split("-")[3]), *numbers])
    names = [f"{name}{part}" for name in ("agreement", "other_noises") for part in ("", "_low", "_high")]
    found, file = pd.DataFrame(rows, columns=["run", "n", *names]).round(4), folder / "agreement.csv"
    known = pd.read_csv(file) if file.is_file() else found[:0]
    kept = known[~known["run"].isin(found["run"])]
    pd.concat([part for part in (kept, found) if len(part)] or [found]).sort_values(["n", "run"]).to_csv(file, index=False)


def _images(folder: Path) -> np.ndarray:
    """The generations of an extraction, [N, C, H, W]."""
    return np.concatenate([Generations.load(part).images.numpy() for part in parts_of(folder)])


def answer(folder: Path = HERE) -> str:
    """One sentence for the front page."""
    parts = []
    for dataset, title in DATASETS.items():
        runs = read_dataset(folder, dataset)
        for rule in RULES if len(runs) else ():
            found = scaling(usable(folder, runs, rule))
            if found.slopes:
                slope = found.mean.text() if found.mean else ", ".join(f"{value:.2f}" for value in found.slopes.values())
                parts.append(f"on {title} by {rule.name} as n^{slope} over {found.range_text} (the exponent {found.verdict})")
    if not parts:
        count = sum(len(read_dataset(folder, dataset)) for dataset in DATASETS)
        return f"How the onset of copying depends on the number of photographs (E2): {count} of {len(DATASETS) * PLANNED} runs are complete, and no slope can be fitted yet."
    return f"The step at which copying of photographs begins grows with their number n: {'; '.join(parts)}."


def main() -> None:
    """Write the page if a run is committed, or the table of agreement."""
    if sys.argv[1:] == ["agreement"]:
        write_agreement(HERE.parents[2] / "runs")
    if not any(HERE.glob("*/measurements.parquet")):
        print("No run of E2 is committed: no page is written.")
        return
    HERE.with_suffix(".md").write_text(page(), encoding="utf-8")
    print(HERE.with_suffix(".md"))


if __name__ == "__main__":
    main()
