"""Write docs/findings/emergence.md and its figures from the rows committed beside this file.

  python docs/findings/emergence/make.py

`python scripts/reproduce.py emergence` trains the runs and copies their rows here. `python docs/findings/emergence/make.py clusters` deals the
sets of the runs again and writes clusters.csv: near-duplicate clusters of the training images.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score

from afterglow.analysis.scaling import compare_laws
from afterglow.analysis.summary import read_measurements
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.functional.statistics import Estimate, exact_interval
from afterglow.functional.survival import interval_regression, log_likelihood
from afterglow.planting.runs import load_planted_set
from afterglow.reports.emergence import (
    NamedFit,
    Section,
    departs,
    emergence_figures,
    emergence_sections,
    growth_departs,
    laws_section,
    median,
    model_fits,
    plant_fits,
    plants_of_kind,
)
from afterglow.reports.paired_plants import pair_plants, paired_text
from afterglow.reports.run import read_plants
from afterglow.reports.runs import EmergenceTables, read_runs
from afterglow.reports.tables import count_text, interval_text, text_table

HERE = Path(__file__).parent
COPIED_KINDS = ("global", "local")
INDICATOR = "denoising_log_ratio.inside"
FIGURES = ("f_mem", "tau_mem_n", "emerged_step", "emerged_exposures", "global_copies_step", "local_copies_step")
THRESHOLDS = {"1/2 ln 2": 0.5 * math.log(2), "ln 2": math.log(2)}  # half, and a quarter, of the squared error on held-out images
LAW_TERMS = {"n": "images", "clusters": "clusters", "effective": "effective number of clusters"}
NUM_CONTROLS = 32  # that an evaluation samples
ALARM_AUC = 0.9  # AUC of the indicator, plants against phantoms, from which on it detects them

INTRODUCTION = """# When does memorization emerge, and does local come before global?

`python docs/findings/emergence/make.py` writes this page from the rows in `docs/findings/emergence/`. `python scripts/reproduce.py emergence` trains the runs again. `afterglow emergence RUN RUN ...` prints the same tables for any runs.

Setup: OpenMoji at 16 pixels; networks trained from scratch at a constant learning rate. Averaged weights are evaluated at steps at most a factor of 1.25 apart. There are two experiments (`configs/findings/sizes.yaml` and `configs/findings/paired_arms.yaml`) with three seeds each. At inner evaluations a plant is memorized if one of 2 generations is a copy, at the last one if 2 of 4 are. Local plants draw each background from 256 images that all of them share: at 940 exposures each has recurred about 4 times per plant. Runs of one seed share their plants, so that the number of distinct plants is given. Brackets hold 95 % intervals: t intervals over the three seeds (each seed is fitted alone), exact or Wilson intervals for counts of distinct items."""

SIZES = """tau_mem: the step at which a tenth of the generations have d1/d2 below 1/3. Only this rule is shown: the evaluations of these runs wrote `nn_ratio` and not `calibrated_l2`, and the generations were not kept.

n counts images, and OpenMoji holds near-duplicates (skin tones by sixes), so that a set of 16 to 128 images holds fewer clusters. The effective number is N = n^2 / sum k^2, where k are the sizes of the clusters. `sizes-128-2` holds one cluster of 23 images, 18 % of its draws.

tau_gen needs a plateau of the held-out loss: it must stay within 5 % of its minimum over at least a factor of 2 in steps. None of these models has one. The step until which the loss is near its minimum is the onset of overfitting, and no law of generalization is fitted."""

PAIRS = """Steps are counted from the first one. A network has to learn to draw before it can copy: plants with many exposures wait for that. Each number of copies goes with some of the shapes only: a `box` always has 200 copies, a `blob` 50, so that the slopes on copies and on area share a cause that this design cannot part."""

START_UPS = """Start-up laws: t is the step of emergence, E the number of exposures that a plant needs after the start-up, r the exposures per step. Laws are fitted to the intervals between evaluations, as in experiment 1; the lower minus log-likelihood fits better. Runs of a few hundred steps cannot separate a start-up that grows with n from a power law without a start-up, which has as many parameters. If the start-up grows, a larger set delays emergence, and "n makes no difference at equal exposures" is two effects that cancel."""

FALSE_POSITIVES = """Distinct items that count as memorized at the last evaluation of at least one run. Phantoms and held-out captions were never trained on: what is memorized there is a false positive. Controls are training images. One whose near-duplicate cluster has k images in the training set was shown k times per epoch: it belongs to a natural family, and a copy of it is a copy. Plants and phantoms are images whose nearest other cluster is at least .10 away; controls are any images."""

INDICATOR_NOTES = f"""The denoising log ratio is half the logarithm of the denoising error on held-out images over that on the plant, inside the plant's mask. It detects a kind from the first evaluation on at which, and at all later ones, it separates plants from phantoms with an AUC of at least {ALARM_AUC}. "At all later ones" is known only after the run, so that this is no rule for stopping. One row per run: the step from which on the kind is detected, the evaluation at which the run's first plant of the kind is memorized and stays so, and the run's median step."""

STOP_NOTES = """Early stopping ends a training when the ratio of a global or local plant exceeds a threshold (`--monitor.early_stop.monitor denoising_log_ratio`). The default threshold is the first row; it was chosen on nine of these runs. The table counts how many evaluations before the first memorized plant the first ratio exceeds the threshold."""

CONTROLS = """Controls of the whole pipeline, run through the commands with 256 generations each (`afterglow extract --model MODEL --run RUN --out OUT`). `own`: a run compared with its own training set. `optimal`: the closed-form optimal denoiser of that set, which copies everything. `other`: a model trained on a disjoint set of the same size (`--data.skip_first`), compared with the first set. `planted-optimal`: the optimal denoiser of a set with plants. The calibrated rule counts 6 % of the generations of `other` as copies of a set that this model never saw: its false-positive rate with 64 images. d1/d2 counts none."""

NOT_MEASURED = """- The public CIFAR-10 checkpoint of 35.7 million parameters and CIFAR-10 at full size: no weights and no GPU were available.
- Bright Ending on unconditional models: it needs an end token. On generations that copy a local plant, the maps `early_difference`, `patch_nearness` and `self_attention` need no text. `afterglow collect` and `afterglow extract` find copies of the training set of a frozen model. Without plants, the true region of a copy remains unknown."""


def page(folder: Path = HERE) -> tuple[str, dict[str, Figure]]:
    """Markdown of the finding, every number computed from the committed rows, and its figures by name."""
    folders = sorted(path.parent for path in folder.glob("*/measurements.parquet"))
    sizes, pairs = ([path for path in folders if path.name.startswith(prefix)] for prefix in ("sizes-", "paired_arms-"))
    models, plants = read_runs(sizes), read_runs(pairs)
    fits = model_fits(models), plant_fits(plants)
    figures = emergence_figures(models, fits[0]) | emergence_figures(plants, fits[1])
    shown = {name: figures[name][1] for name in FIGURES if name in figures}
    parts = [
        INTRODUCTION,
        "## Conclusions",
        "\n".join(f"{number}. {line}" for number, line in enumerate(conclusions(models, plants, *fits, pairs), start=1)),
        "## Experiment 1: models without plants",
        SIZES,
        *sections(models, fits[0], laws_section(with_clusters(models.runs, folder), LAW_TERMS)),
        "## Experiment 2: each template whole in one run, as a region in its paired run",
        PAIRS,
        START_UPS,
        *start_ups_text(plants),
        *sections(plants, fits[1]),
        "## False positives",
        FALSE_POSITIVES,
        text_table(
            ["distinct items", "memorized (95 %, exact)"], [[kind, exact_text(*c)] for kind, c in false_positives(pairs, folder).items()]
        ),
        "## Leading indicator",
        INDICATOR_NOTES,
        indicator_text(plants, pairs),
        STOP_NOTES,
        thresholds_text(pairs),
        "## Controls",
        CONTROLS,
        controls_text(folder / "controls"),
        "## Figures",
        *(figure_text(name, figures[name][0].partition(";")[0]) for name in shown),
        "## Not measured",
        NOT_MEASURED,
    ]
    return "\n\n".join(parts) + "\n", shown


def figure_text(name: str, title: str) -> str:
    """The title of a figure, and the figure."""
    return f"{title}:\n\n![{title}](emergence/{name}.png)"


def start_ups(table: pd.DataFrame) -> dict[str, tuple[int, float]]:
    """{law of the step of emergence: (number of parameters with sigma, minus log-likelihood)}. table: plants of one kind."""
    lower, upper = (table[name].to_numpy(float) for name in ("lower", "upper"))
    design = np.column_stack([np.log(table["n"].astype(float)), np.log(table["copies"].astype(float)), np.ones(len(table))])
    values, sigma = interval_regression(lower, upper, design)

    def growing(power: float) -> float:
        """Of t0 n^power + E / r: divided by n^power, which changes no likelihood, it is the law with an offset over 1 / (r n^power)."""
        scale = table["n"].to_numpy(float) ** power
        scaled = table.assign(lower=lower / scale, upper=upper / scale, wait=1 / (table["rate"] * scale))
        return compare_laws(scaled, "wait")[1].negative_log_likelihood

    found = minimize_scalar(growing, bounds=(0, 2), method="bounded")
    return {
        "constant: t0 + E / r": (3, growing(0.0)),
        f"growing with the set: t0 n^a + E / r, a = {found.x:.2f}": (4, float(found.fun)),
        "none, a power law: c n^a copies^b": (4, -float(log_likelihood(lower, upper, design @ values, sigma)[0])),
    }


def start_ups_text(tables: EmergenceTables) -> Iterator[str]:
    """One row per kind and law, and what follows."""
    laws = {kind: start_ups(plants_of_kind(tables.plants, kind)) for kind in COPIED_KINDS}
    rows = [[kind, law, str(number), f"{loss:.1f}"] for kind, found in laws.items() for law, (number, loss) in found.items()]
    yield text_table(["emergence of", "start-up", "parameters", "minus log-likelihood"], rows)
    verdicts = [start_up_verdict(kind, [loss for _, loss in found.values()]) for kind, found in laws.items()]
    yield " ".join([*verdicts, "No p value is given, because the plants of a seed are not independent."])


def start_up_verdict(kind: str, losses: Sequence[float]) -> str:
    """How the three laws stand to each other. losses: minus the log-likelihoods of a constant, a growing and no start-up."""
    constant, growing, power = losses
    better = "fits better than a constant one" if growing < constant else "fits no better than a constant one"
    best = "fits better still" if power < min(losses[:2]) else "fits no better"
    return (
        f"For {kind} plants a start-up that grows with the set {better} ({growing:.1f} against {constant:.1f}, with one more parameter), and a "
        f"power law without a start-up {best} ({power:.1f})."
    )


def with_clusters(runs: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The table of runs with the number of clusters of their training images and the effective number."""
    clusters = pd.read_csv(folder / "clusters.csv")
    sizes = {run: part.drop_duplicates("cluster")["size"].to_numpy() for run, part in clusters.groupby("run")}
    effective = [sizes[run].sum() ** 2 / np.square(sizes[run]).sum() for run in runs["run"]]
    return runs.assign(clusters=[len(sizes[run]) for run in runs["run"]], effective=effective)


def write_clusters(folder: Path = HERE) -> None:
    """clusters.csv: run, plant_id (of the control), cluster, and its number of images among the run's controls."""
    tables = []
    for path in sorted(folder.glob("*/config.yaml")):
        planted = load_planted_set(path.parent)
        cluster = planted.clusters[planted.controls]
        sizes = pd.Series(cluster).map(pd.Series(cluster).value_counts())
        numbers = len(planted.plants) + planted.controls
        tables.append(pd.DataFrame({"run": path.parent.name, "plant_id": numbers, "cluster": cluster, "size": sizes}))
        if not path.parent.name.startswith("sizes-"):
            tables[-1] = tables[-1].head(NUM_CONTROLS)
    pd.concat(tables).to_csv(folder / "clusters.csv", index=False)


def exact_text(count: int, total: int) -> str:
    """'7 of 8 (47.3% to 99.7%)' with the exact interval (Clopper and Pearson)."""
    low, high = exact_interval(count, total)
    return f"{count} of {total} ({low:.1%} to {high:.1%})"


def sections(tables: EmergenceTables, fits: Sequence[NamedFit], laws: Section | None = None) -> Iterator[str]:
    """The tables of `afterglow emergence` under headings; laws replaces the section of the same title."""
    for section in emergence_sections(tables, fits):
        section = laws if laws and section.title == laws.title else section
        yield f"### {section.title}"
        yield section.text()


def conclusions(
    models: EmergenceTables, plants: EmergenceTables, model: Sequence[NamedFit], plant: Sequence[NamedFit], folders: Sequence[Path]
) -> Iterator[str]:
    """One or two sentences per conclusion. Verdicts depend on the intervals."""

    def verdict(slope: Estimate, reference: float) -> str:
        return "differs from" if departs(slope, reference) else "is not significantly different from"

    clusters = with_clusters(models.runs, HERE)
    memorized = clusters.assign(lower=clusters["tau_mem_lower"], upper=clusters["tau_mem_upper"])
    laws, (effective_power, effective_offset) = (compare_laws(memorized, term) for term in ("n", "effective"))
    (power, offset), slope = laws, model[0].fit.slopes["n"]
    proven = growth_departs(slope, 1.0, laws)
    yield (
        f"In models without captions, tau_mem by d1/d2 grows with the number of images n as n^a with a = {interval_text(slope)}. "
        f"{'This departs from' if proven else 'It is not distinguishable from'} the linear growth of Bonnaire et al.: the law t0 + c n has "
        f"minus log-likelihood {offset.negative_log_likelihood:.1f}, the power law {power.negative_log_likelihood:.1f}. Over the effective "
        f"number of clusters they have {effective_offset.negative_log_likelihood:.1f} and {effective_power.negative_log_likelihood:.1f}, with "
        f"t0 = {effective_offset.parameters['t0']:.0f} steps and c = {effective_offset.parameters['c']:.0f} steps per cluster. The choice of "
        f"this axis was made after the results."
    )
    reached = int(models.runs["tau_gen"].notna().sum())
    yield (f"tau_gen exists in {reached} of {len(models.runs)} of these models: in the others the held-out loss has no plateau.")
    yield paired_text(pair_plants(plants))
    for named in plant:
        for term in ("n", "copies") if named.axis == "exposures" else ():
            slope = named.fit.slopes[term]
            yield (
                f"The number of exposures after which {named.name} plants emerge grows as {term}^a with a = {interval_text(slope)}. This "
                f"{verdict(slope, 0.0)} 0, the value if exposure alone decides; copies and shapes are not crossed in this design."
            )
    counts = (f"{kind}: {exact_text(count, total)}" for kind, (count, total) in false_positives(folders, HERE).items())
    yield f"Memorized at the last evaluation of at least one run, distinct items: {'; '.join(counts)}."


def false_positives(folders: Sequence[Path], clusters: Path) -> dict[str, tuple[int, int]]:
    """{kind: (distinct items memorized at the last evaluation of a run, all)}; controls apart by whether their cluster has other images."""
    sizes = pd.read_csv(clusters / "clusters.csv").set_index(["run", "plant_id"])["size"].to_dict()
    items: dict[str, dict[tuple[str, str], bool]] = {}
    for folder in folders:
        rows, seed = read_measurements(folder / "measurements.parquet"), folder.name.rpartition("-")[2]
        captions = {number: plant["text"] for number, plant in read_plants(folder).items()}
        last = rows[(rows["step"] == rows["step"].max()) & (rows["measure"] == "plant_memorized")]
        last = last.assign(place=last.groupby("kind")["plant_id"].rank().astype(int))
        for row in last[last["kind"].isin(("phantom", "control", "heldout"))].itertuples():
            kind = row.kind
            if kind == "control":
                kind = "control, alone in its cluster" if sizes[folder.name, row.plant_id] == 1 else "control of a natural family"
            item = seed, captions.get(row.plant_id, f"{row.kind} {row.place}")
            known = items.setdefault(kind, {})
            known[item] = known.get(item, False) or row.value > 0.5
    return {kind: (sum(found.values()), len(found)) for kind, found in items.items()}


def indicator_text(tables: EmergenceTables, folders: Sequence[Path]) -> str:
    """One row per run and kind: the step of detection, the first emergence, and the median; then how often which came first."""
    lines, order = [], []
    for kind in COPIED_KINDS:
        signs = []
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            plants = plants_of_kind(tables.plants, kind)
            own = plants[plants["run"] == folder.name]
            detected, first, middle = detected_from(rows[rows["measure"] == INDICATOR], kind), own["upper"].min(), median(own)
            signs.append(np.sign(detected - first))
            lines.append([folder.name, kind, *("-" if np.isinf(step) else f"{step:.0f}" for step in (detected, first, middle))])
        before, same, after = (signs.count(sign) for sign in (-1.0, 0.0, 1.0))
        order.append(
            f"{kind} plants: before the run's first emergence in {before} of {len(signs)} runs, at the same evaluation in {same}, after it in {after}"
        )
    head = ["run", "kind", "detected from step", "first emergence", "median emergence"]
    return f"{text_table(head, lines)}\n\nDetection of {'; of '.join(order)}."


def detected_from(rows: pd.DataFrame, kind: str) -> float:
    """The first step from which on the indicator separates a kind from phantoms with ALARM_AUC; infinite if it never does."""
    first = float("inf")
    for step in sorted(rows["step"].unique(), reverse=True):
        part = rows[(rows["step"] == step) & rows["kind"].isin((kind, "phantom"))]
        if roc_auc_score(part["kind"] == kind, part["value"]) < ALARM_AUC:
            break
        first = float(step)
    return first


def thresholds_text(folders: Sequence[Path]) -> str:
    """For each threshold, how many evaluations before the first memorized plant a plant or a phantom exceeds it."""
    lines = []
    for name, threshold in THRESHOLDS.items():
        leads, alarms = [], 0
        for folder in folders:
            rows = read_measurements(folder / "measurements.parquet")
            rows = rows[rows["step"] > 0]
            above = rows[(rows["measure"] == INDICATOR) & (rows["value"] > threshold)]
            memorized = rows[(rows["measure"] == "plant_memorized") & rows["kind"].isin(COPIED_KINDS) & (rows["value"] > 0.5)]["step"].min()
            place = {step: number for number, step in enumerate(sorted(rows["step"].unique()))}
            plants, phantoms = (above[above["kind"].isin(kinds)]["step"].min() for kinds in (COPIED_KINDS, ["phantom"]))
            if plants in place and memorized in place:
                leads.append(place[memorized] - place[plants])
            alarms += phantoms < memorized
        spread = f"{min(leads)} to {max(leads)}" if leads else "-"
        lines.append([name, f"{sum(lead > 0 for lead in leads)} of {len(folders)}", spread, f"{alarms} of {len(folders)}"])
    head = ["threshold", "runs in which a plant exceeds it before", "evaluations before (negative: after)", "a phantom exceeds it before"]
    return text_table(head, lines)


def controls_text(folder: Path) -> str:
    """One row per committed extraction: copied whole images by Carlini's criterion, and extracted plants and phantoms."""
    rows = []
    for path in sorted(folder.glob("*/extract.parquet")):
        table, file = pd.read_parquet(path), path.parent / "plants.parquet"
        plants = pd.read_parquet(file) if file.is_file() else pd.DataFrame({"kind": [], "generations": []})
        extracted = [plants[plants["kind"] == kind]["generations"] > 0 for kind in ("global", "local", "phantom")]
        copies, close = int((table["calibrated_l2"] < 1).sum()), int((table["nn_ratio"] < CLOSE_RATIO).sum())
        counts = [f"{int(part.sum())} of {len(part)}" if len(part) else "-" for part in extracted]
        rows.append([path.parent.name, count_text(copies, len(table)), f"{close} of {len(table)}", *counts])
    return text_table(["control", "calibrated distance below 1", "d1/d2 below 1/3", "global extracted", "local", "phantoms"], rows)


if __name__ == "__main__":
    if sys.argv[1:] == ["clusters"]:
        write_clusters()
    text, drawn = page()
    for figure_name, figure in drawn.items():
        figure.savefig(HERE / f"{figure_name}.png", dpi=110, facecolor="white")
    HERE.with_suffix(".md").write_text(text, encoding="utf-8")
    print(HERE.with_suffix(".md"))
