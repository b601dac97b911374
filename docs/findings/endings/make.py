"""Write docs/findings/endings.md from the rows committed beside this file (docs/findings/plan.md, E3).

  python docs/findings/endings/make.py

`python scripts/reproduce.py endings` trains the runs and copies their rows here; runs that are not committed yet are left out.
`python docs/findings/endings/make.py clusters` plants the sets again and writes clusters.csv: the near-duplicate clusters of the controls.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afterglow.analysis.knockout import count_copies
from afterglow.analysis.summary import ALL_SEEDS, read_measurements
from afterglow.functional.distances import CLOSE_RATIO
from afterglow.functional.statistics import t_interval
from afterglow.kinds import KINDS
from afterglow.measures.registry import TRIVIAL_MAPS
from afterglow.planting.runs import load_planted_set
from afterglow.planting.targets import cluster_sizes
from afterglow.reports.figures import PLAIN_STYLE, new_figure, save_figure
from afterglow.reports.tables import interval_text, text_table

HERE = Path(__file__).parent
ARMS = {
    "minilm": "MiniLM, frozen",
    "minilm_masked": "MiniLM, frozen, pads masked",
    "causal": "causal, trained along",
    "causal_masked": "causal, trained along, pads masked",
    "contrastive": "causal, contrastive, frozen",
    "random": "causal, random, frozen",
    "causal_heads": "causal, trained along, four heads",
}
MAPS = {
    "BOS": "token_group.last.bos",
    "words": "token_group.last.words",
    "first end": "end_token.last.first_eos",
    "pads": "token_group.last.pads",
    "end and pads": "end_token.last.eos_and_pads",
    "sink darkness": "sink_darkness.last",
}
MASSES = {"BOS": "bos", "words": "words", "first end": "first_end", "pads": "pads"}
PRIMARY = "first end"
CLASSES = ("local, memorized", "local, not memorized", "tint", "phantom", "decoy")
NUM_CONTROLS = 64  # that the last evaluation samples
RUN_COLUMNS = [
    "arm", "seed", "global", "local", "global, d1/d2", "local, d1/d2", "phantoms", "controls, alone", "controls of families",
]  # fmt: skip
CONTROLS = "By the calibrated distance, and where the column says so by d1/d2 below 1/3 in at least half of the generations. All of 8: at least 63 %, none of 16 phantoms: at most 21 % (exact 95 % bounds). A control is a training image that is seen once per epoch. Where its near-duplicate cluster has several training images, they are a natural family that is seen as often as it has images: a copy of it is no false positive."
MIN_PLANTS = 8  # of a mean in the figure: a run's local plants
WINDOW = 3  # evaluations before, and from, the emergence of a plant
TRIVIAL = tuple(m.name for m in TRIVIAL_MAPS)
PLANNED_SEEDS = 3
FIGURE_NOTE = "The figure shows the table: one mark per seed. The bar is the best trivial map on memorized local plants (mean of the seeds), the dotted line chance. A map that is as high on tints as on copies shows what the caption predicts. Last panel: the next table."

VERDICTS = "*First end token*: its AUC on memorized local plants against the best trivial map. *Follows memorization*: the t interval of the primary quantity, the AUC from the emergence on less the AUC before it, excludes 0, and the AUC on tints is lower than on memorized plants in every seed. The same is stated of the trivial maps. Nothing is corrected for seven arms."

INTRODUCTION = """# When does the ending brighten?

`python docs/findings/endings/make.py` writes this page from the rows in `docs/findings/endings/`. The [plan](plan.md) states question, rule and commands (E3).

Setup: the demo's recipe (OpenMoji at 16 pixels), 1,600 steps, averaged weights, guidance scale 1, 12 sampling steps, maps of the last sampling step. AUC: how well the pixels of a map separate the inside of the region from the outside; a plant's value is the mean over its generations, a run's the mean over its plants. Values of several seeds are listed in the order of the seeds; brackets hold the 95 % t interval over seeds. There is no interval with one seed, and no verdict before all three seeds of an arm are committed."""


def read_runs(folder: Path) -> dict[tuple[str, int], pd.DataFrame]:
    """{(arm, seed): rows of all evaluations} of the committed runs."""
    found = {}
    for path in folder.glob("endings-*/measurements.parquet"):
        arm, seed = path.parent.name.removeprefix("endings-").rsplit("-", 1)
        found[arm, int(seed)] = read_measurements(path)
    return dict(sorted(found.items(), key=lambda item: (list(ARMS).index(item[0][0]), item[0][1])))


def plant_auc(rows: pd.DataFrame, name: str) -> pd.Series:
    """Mean AUC of a map over the generations of each plant; index step, kind, plant_id."""
    own = rows[(rows["measure"] == f"auc.{name}") & (rows["seed"] != ALL_SEEDS)]
    return own.groupby(["step", "kind", "plant_id"])["value"].mean()


def memorized_plants(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether each plant is memorized (plant_memorized) at each evaluation; rows: steps, columns: plant_id."""
    return rows[rows["measure"] == "plant_memorized"].pivot_table(index="step", columns="plant_id", values="value") > 0.5


def class_means(rows: pd.DataFrame, name: str) -> dict[str, float]:
    """Mean AUC of a map at the last evaluation for each of CLASSES; a class without plants is absent."""
    last = rows["step"].max()
    areas = plant_auc(rows[rows["step"] == last], name).droplevel("step")
    copied = memorized_plants(rows).loc[last]
    kinds = areas.index.get_level_values("kind")
    local = areas[kinds == "local"].droplevel("kind")
    inside = copied.reindex(local.index).fillna(False).astype(bool)
    parts = {CLASSES[0]: local[inside], CLASSES[1]: local[~inside]}
    parts |= {kind: areas[kinds == kind] for kind in CLASSES[2:]}
    return {kind: float(values.mean()) for kind, values in parts.items() if len(values)}


def aligned(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """AUC of local plants around their own emergence; rows: plants, columns: evaluations after the first at which it stays memorized."""
    areas, copied, table = plant_auc(rows, name), memorized_plants(rows), {}
    steps = copied.index.tolist()
    local = areas[areas.index.get_level_values("kind") == "local"].droplevel("kind")
    for plant in local.index.unique("plant_id"):
        stays = copied[plant].to_numpy()[::-1].cumprod()[::-1].astype(bool)
        if not stays.any():
            continue
        first = int(stays.argmax())
        own = local.xs(plant, level="plant_id")
        table[plant] = {number - first: own.get(step, np.nan) for number, step in enumerate(steps)}
    return pd.DataFrame.from_dict(table, orient="index").sort_index(axis=1) if table else pd.DataFrame()


def follows(rows: pd.DataFrame, name: str) -> float:
    """Mean over plants of the AUC at the WINDOW evaluations from emergence on, minus that at the WINDOW evaluations before; NaN without."""
    table = aligned(rows, name)
    if table.empty:
        return np.nan
    before, after = (table[[k for k in table if low <= k < low + WINDOW]].mean(axis=1) for low in (-WINDOW, 0))
    return float((after - before).mean())


def best_trivial(rows: pd.DataFrame) -> float:
    """Largest mean AUC on memorized local plants of the trivial maps and their inversions; NaN without memorized plants."""
    values = [class_means(rows, name).get(CLASSES[0], np.nan) for name in TRIVIAL]
    return float(np.max([value for area in values for value in (area, 1 - area)]))


def seeds_text(values: Sequence[float]) -> str:
    """'0.71, 0.65 [0.30, 1.06]': the value of each seed, and the t interval of the seeds that have one."""
    text, known = ", ".join("-" if np.isnan(value) else f"{value:.2f}" for value in values), [v for v in values if not np.isnan(v)]
    if len(known) < 2:
        return text
    estimate = t_interval(known)
    return f"{text} [{estimate.low:.2f}, {estimate.high:.2f}]"


def verdict(runs: Mapping[int, pd.DataFrame]) -> str:
    """What the rule of the plan says about one arm. runs: {seed: rows}."""
    means = [class_means(rows, f"{MAPS[PRIMARY]}.all") for rows in runs.values()]
    areas, differences = [m.get(CLASSES[0], np.nan) for m in means], [follows(rows, f"{MAPS[PRIMARY]}.all") for rows in runs.values()]
    if len(runs) < PLANNED_SEEDS or np.isnan(areas).any() or np.isnan(differences).any():
        return f"undecided, {len(runs)} of {PLANNED_SEEDS} seeds"
    area, trivial = t_interval(areas), max(best_trivial(rows) for rows in runs.values())
    difference = t_interval(differences)
    tints = [m["tint"] >= area for m, area in zip(means, areas, strict=True)]
    if area.low <= trivial:
        return "does not brighten" if area.high < trivial else "not distinguishable from the best trivial map"
    if all(tints):
        return "brightens; the map shows what the caption predicts"
    apart = difference.low > 0 or difference.high < 0
    return "brightens and follows memorization" if apart and not any(tints) else "brightens; not shown to follow memorization"


def follows_verdict(runs: Mapping[int, pd.DataFrame], name: str = f"{MAPS[PRIMARY]}.all") -> str:
    """What the second rule of the plan says about a map in one arm: the primary quantity, and whether tints are darker in every seed."""
    differences, means = [follows(rows, name) for rows in runs.values()], [class_means(rows, name) for rows in runs.values()]
    if len(runs) < PLANNED_SEEDS or np.isnan(differences).any():
        return f"undecided, {len(runs)} of {PLANNED_SEEDS} seeds"
    estimate = t_interval(differences)
    lower = sum(m["tint"] < m.get(CLASSES[0], -np.inf) for m in means)
    both = (estimate.low > 0 or estimate.high < 0) and lower == len(means)
    return f"{'holds' if both else 'does not hold'}: {interval_text(estimate, '+.2f')}, tints lower in {lower} of {len(means)} seeds"


def trivial_followers(runs: Mapping[int, pd.DataFrame]) -> list[str]:
    """The trivial maps that meet the second rule of the plan in one arm."""
    return [name for name in TRIVIAL if follows_verdict(runs, name).startswith("holds")]


def by_arm(runs: Mapping[tuple[str, int], pd.DataFrame]) -> dict[str, dict[int, pd.DataFrame]]:
    """{arm: {seed: rows}}."""
    arms: dict[str, dict[int, pd.DataFrame]] = {}
    for (arm, seed), rows in runs.items():
        arms.setdefault(arm, {})[seed] = rows
    return arms


def read_clusters(folder: Path) -> pd.DataFrame:
    """Cluster of each control and its number of training images; index: seed, plant_id."""
    return pd.read_csv(folder / "clusters.csv").set_index(["seed", "plant_id"])


def write_clusters(folder: Path = HERE) -> None:
    """clusters.csv: seed, plant_id of a control, its near-duplicate cluster, and the controls of the training set in it; equal for all arms."""
    tables = []
    for seed, run in {int(path.name.rsplit("-", 1)[1]): path for path in sorted(folder.glob("endings-*"))}.items():
        planted = load_planted_set(run)
        rows, sizes = planted.controls[:NUM_CONTROLS], cluster_sizes(planted)
        numbers = len(planted.plants) + rows
        columns = {"plant_id": numbers, "cluster": planted.clusters[rows], "size": [sizes[number] for number in numbers.tolist()]}
        tables.append(pd.DataFrame({"seed": seed, **columns}))
    pd.concat(tables).sort_values(["seed", "plant_id"]).to_csv(folder / "clusters.csv", index=False)


def runs_table(runs: Mapping[tuple[str, int], pd.DataFrame], clusters: pd.DataFrame) -> str:
    """Plants of each run that are memorized at its last evaluation; clusters: see `read_clusters`."""
    table = []
    for (arm, seed), rows in runs.items():
        last = rows[rows["step"] == rows["step"].max()]
        calibrated = last[last["measure"] == "plant_memorized"].set_index(["kind", "plant_id"])["value"]
        close = last[last["measure"] == "nn_ratio"].assign(copy=lambda part: part["value"] < CLOSE_RATIO)
        by_ratio = close.groupby(["kind", "plant_id"])["copy"].mean() >= 0.5
        alone = [number for number, size in clusters.loc[seed]["size"].items() if size == 1]
        controls = calibrated.get("control", pd.Series(dtype=float))
        parts = [of.get(kind, controls[:0]) for of in (calibrated, by_ratio) for kind in ("global", "local")]
        parts += [calibrated.get("phantom", controls[:0]), controls[controls.index.isin(alone)], controls[~controls.index.isin(alone)]]
        table.append([ARMS[arm], str(seed), *(f"{int(part.sum())} of {len(part)}" for part in parts)])
    return text_table(RUN_COLUMNS, table)


def families_text(runs: Mapping[tuple[str, int], pd.DataFrame], clusters: pd.DataFrame) -> str:
    """Natural families of which a control is memorized, one sentence for each run; clusters: see `read_clusters`."""
    sentences = [CONTROLS]
    for (arm, seed), rows in runs.items():
        own = clusters.loc[seed]
        last = rows[(rows["step"] == rows["step"].max()) & (rows["measure"] == "plant_memorized") & (rows["kind"] == "control")]
        asked = own.loc[last["plant_id"]]
        memorized = own.loc[last[last["value"] > 0.5]["plant_id"]]
        for (cluster, size), part in memorized[memorized["size"] > 1].groupby(["cluster", "size"]):
            total = int((asked["cluster"] == cluster).sum())
            sentences.append(f"{ARMS[arm]}, seed {seed}: {len(part)} of {total} evaluated images of one family of {size} are memorized.")
    return " ".join(sentences)


def maps_table(arms: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """AUC of the maps (mean of all layers) on each class at the last evaluation, and the difference around emergence."""
    table = []
    for arm, runs in arms.items():
        for label, name in MAPS.items():
            means = [class_means(rows, f"{name}.all") for rows in runs.values()]
            cells = [seeds_text([m.get(kind, np.nan) for m in means]) for kind in CLASSES]
            table.append([ARMS[arm], label, *cells, seeds_text([follows(rows, f"{name}.all") for rows in runs.values()])])
        table.append([ARMS[arm], "best trivial map", seeds_text([best_trivial(rows) for rows in runs.values()]), *["-"] * len(CLASSES)])
    return text_table(["arm", "map", *CLASSES, "AUC after minus before emergence"], table)


def emergence_table(arms: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """AUC of the first end token's map on local plants by evaluations after their own emergence, seeds pooled; in brackets the plants."""
    table = []
    for arm, runs in arms.items():
        pooled = pooled_plants(runs)
        cells = [f"{values.mean():.2f} ({len(values)})" if len(values) else "-" for values in pooled.values()]
        table.append([ARMS[arm], *cells])
    return text_table(["arm", *(f"{k:+d}" for k in range(-WINDOW, WINDOW))], table)


def endings_figure(arms: Mapping[str, Mapping[int, pd.DataFrame]]) -> Figure:
    """One panel per arm: AUC of each group's map on memorized local plants, tints and phantoms; one panel: around the plants' emergence."""
    panels = len(arms) + 1
    columns = min(4, panels)
    rows = -(-panels // columns)
    with matplotlib.rc_context({**PLAIN_STYLE, "font.size": 9}):
        figure = new_figure(0.6 + 2.7 * columns, 0.8 + 2.6 * rows)
        grid = [figure.add_subplot(rows, columns, number + 1) for number in range(panels)]
        for axes, (arm, runs) in zip(grid, arms.items(), strict=False):
            arm_panel(axes, runs)
            axes.set_title(ARMS[arm], fontsize=9)
            if axes.get_subplotspec().is_first_col():
                axes.set_yticks(range(len(MAPS)), list(MAPS))
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        aligned_panel(grid[-1], arms)
        figure.legend(*grid[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def arm_panel(axes: Axes, runs: Mapping[int, pd.DataFrame]) -> None:
    """Marks of each seed; rows of the panel: token groups, from the top."""
    axes.axvline(0.5, color="#bbbbbb", linestyle=":", linewidth=1)
    axes.axvline(float(np.nanmean([best_trivial(rows) for rows in runs.values()])), color="#555555", linewidth=1, label="best trivial map")
    shown = {CLASSES[0]: KINDS["local"], "tint": KINDS["tint"], "phantom": KINDS["phantom"]}
    for place, name in enumerate(MAPS.values()):
        means = [class_means(rows, f"{name}.all") for rows in runs.values()]
        for shift, (title, kind) in zip((-0.2, 0, 0.2), shown.items(), strict=True):
            values = [m[title] for m in means if title in m]
            label = title if not place else None
            axes.plot(values, [place + shift] * len(values), kind.marker, color=kind.color, markersize=5, alpha=0.8, label=label)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(MAPS) - 0.5, -0.5), yticks=[], xlabel="AUC")


def aligned_panel(axes: Axes, arms: Mapping[str, Mapping[int, pd.DataFrame]]) -> None:
    """AUC of the first end token's map on local plants by evaluations after their own emergence, seeds pooled; one line per arm."""
    for number, (arm, runs) in enumerate(arms.items()):
        means = {k: values.mean() for k, values in pooled_plants(runs).items() if len(values) >= MIN_PLANTS}
        axes.plot(
            list(means), list(means.values()), color=colormaps["cividis"](number / len(ARMS)), marker="osD^vPX"[number], label=ARMS[arm]
        )
    axes.axvline(-0.5, color="#bbbbbb", linestyle=":", linewidth=1)
    axes.set_title("first end token, local plants", fontsize=9)
    axes.set(ylim=(0, 1), xlabel="evaluations after the emergence", ylabel="AUC")


def pooled_plants(runs: Mapping[int, pd.DataFrame]) -> dict[int, pd.Series]:
    """{evaluations after emergence: AUC of the first end token's map on each local plant of all seeds that has this evaluation}."""
    parts = [part for rows in runs.values() if not (part := aligned(rows, f"{MAPS[PRIMARY]}.all")).empty]
    pooled = pd.concat(parts) if parts else pd.DataFrame()
    return {k: pooled[k].dropna() if k in pooled else pd.Series(dtype=float) for k in range(-WINDOW, WINDOW)}


def masses_table(arms: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """Share of the attention of each group at the last evaluation, on local plants, tints and phantoms."""
    table = []
    for arm, runs in arms.items():
        for kind in ("local", "tint", "phantom"):
            last = [rows[(rows["step"] == rows["step"].max()) & (rows["kind"] == kind)] for rows in runs.values()]
            masses = [
                [rows[rows["measure"] == f"attention_mass.{group}.all"]["value"].mean() for rows in last] for group in MASSES.values()
            ]
            table.append([ARMS[arm], kind, *(seeds_text(values) for values in masses)])
    return text_table(["arm", "kind", *MASSES], table)


def knockout_table(folder: Path, runs: Mapping[tuple[str, int], pd.DataFrame]) -> str:
    """Copies that remain, by the calibrated distance, of the generations of each kind; seeds added."""
    table = []
    for arm in dict.fromkeys(arm for arm, _ in runs):
        files = [folder / f"endings-{arm}-{seed}" / "knockout" / "knockout.parquet" for other, seed in runs if other == arm]
        rows = pd.concat([pd.read_parquet(file) for file in files])
        copies = count_copies(rows)
        for name, part in copies[copies["rule"] == "calibrated_l2"].groupby("knockout", sort=False):
            counts = [part[part["kind"] == kind][["copies", "generations"]].sum() for kind in ("global", "local", "phantom")]
            table.append([ARMS[arm], str(name), *(f"{c['copies']} of {c['generations']}" for c in counts)])
    return text_table(["arm", "replaced", "global", "local", "phantoms"], table)


def layers_table(arms: Mapping[str, Mapping[int, pd.DataFrame]]) -> str:
    """The layer of the first end token's map that is best on the other seeds, evaluated on each seed; arms with at least three seeds."""
    table = []
    for arm, runs in arms.items():
        names = [n.removeprefix("auc.") for n in next(iter(runs.values()))["measure"].unique() if n.startswith(f"auc.{MAPS[PRIMARY]}.")]
        areas = pd.DataFrame(
            {seed: {name: class_means(rows, name).get(CLASSES[0], np.nan) for name in names} for seed, rows in runs.items()}
        )
        for seed in areas if len(runs) > 2 else ():
            best = areas.drop(columns=seed).mean(axis=1).idxmax()
            table.append([ARMS[arm], str(seed), str(best).removeprefix(f"{MAPS[PRIMARY]}."), f"{areas.loc[best, seed]:.2f}"])
    return text_table(["arm", "seed", "layer chosen on the other seeds", "AUC"], table) if table else "No arm has three seeds yet."


def page(folder: Path = HERE) -> str:
    """Markdown of the finding; every number is computed from the committed rows."""
    runs = read_runs(folder)
    arms, clusters = by_arm(runs), read_clusters(folder)
    parts = [
        INTRODUCTION,
        "## Verdicts by the rule of the plan",
        VERDICTS,
        text_table(
            ["arm", "seeds", "first end token follows memorization", "trivial maps that follow memorization", "first end token"],
            [
                [
                    ARMS[a],
                    str(len(of)),
                    follows_verdict(of),
                    ", ".join(f"`{name}`" for name in trivial_followers(of)) or "none",
                    verdict(of),
                ]
                for a, of in arms.items()
            ],
        ),
        "## Runs: memorized plants at the last evaluation",
        runs_table(runs, clusters),
        families_text(runs, clusters),
        "## Maps of the token groups, mean of all layers",
        maps_table(arms),
        "![AUC of the maps of the token groups, by text encoder](endings/endings.png)",
        FIGURE_NOTE,
        "## First end token around the emergence of each local plant",
        f"Column k: k evaluations after the first at which the plant is memorized and stays so; in brackets the plants that have this evaluation, of at most 24. The runs end soon after the emergence, so that the late columns hold few plants; the figure leaves out means of fewer than {MIN_PLANTS}. The last column of the table above is the mean of the {WINDOW} evaluations from 0 on, minus that of the {WINDOW} before.",
        emergence_table(arms),
        "## Attention mass",
        masses_table(arms),
        "## Knock-out: copies that remain",
        knockout_table(folder, runs),
        "## Layers",
        layers_table(arms),
    ]
    return "\n\n".join(parts) + "\n"


def answer(folder: Path = HERE) -> str:
    """The answer for the front page: both rules of the plan, and which tokens the local copies need."""
    arms = by_arm(read_runs(folder))
    if not arms:
        return "For which text encoder the ending brightens is not measured yet (E3)."
    brighter = [ARMS[arm] for arm, runs in arms.items() if verdict(runs).startswith("brightens")]
    followed = [ARMS[arm] for arm, runs in arms.items() if follows_verdict(runs).startswith("holds")]
    trivial = sum(bool(trivial_followers(runs)) for runs in arms.values())
    needed = Counter(needed_states(folder, arm, runs) for arm, runs in arms.items())
    return (
        f"The map of the first end token is shown to exceed the best trivial map on memorized regions with {named(brighter, len(arms))}. "
        f"It follows memorization with {named(followed, len(arms))}, and a trivial map does so with {trivial} of them. Replacing the states of the "
        f"words by their mean removes more local copies in every seed than replacing those of the end and pads with {needed['words']} encoders, "
        f"the reverse holds with {needed['end_and_pads']}, and with {needed['']} the order changes between seeds."
    )


def named(arms: Sequence[str], total: int) -> str:
    """'1 of 7 text encoders (MiniLM, frozen)'."""
    names = f" ({'; '.join(arms)})" if arms else ""
    return f"{len(arms)} of {total} text encoders{names}"


def needed_states(folder: Path, arm: str, runs: Mapping[int, pd.DataFrame]) -> str:
    """Of the words and of the end and pads, the token group without whose states fewer local copies remain in every seed; '' if it varies."""
    orders = set()
    for seed in runs:
        rows = pd.read_parquet(folder / f"endings-{arm}-{seed}" / "knockout" / "knockout.parquet")
        copies = rows[(rows["measure"] == "memorized") & (rows["kind"] == "local")].groupby("knockout")["value"].sum()
        words, end = copies["words"], copies["end_and_pads"]
        orders.add("words" if words < end else "end_and_pads" if end < words else "")
    return orders.pop() if len(orders) == 1 else ""


def main() -> None:
    """Write the page if a run is committed."""
    if not read_runs(HERE):
        print("No run of E3 is committed: no page is written.")
        return
    (HERE.parent / "endings.md").write_text(page(), encoding="utf-8")
    save_figure(endings_figure(by_arm(read_runs(HERE))), [HERE / "endings.png"])
    print(HERE.parent / "endings.md")


if __name__ == "__main__":
    if sys.argv[1:] == ["clusters"]:
        write_clusters()
    main()
