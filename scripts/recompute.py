"""Recompute the main numbers of the findings' pages from the committed rows, without Afterglow, and compare them with the pages.

Prints page, quantity, number on the page and recomputed number; exits with 1 if one differs by more than its rounding (fits: 0.02).
"""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

FINDINGS = Path(__file__).parents[1] / "docs" / "findings"
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")
MAPS = {
    "BOS": "token_group.last.bos",
    "words": "token_group.last.words",
    "first end": "end_token.last.first_eos",
    "pads": "token_group.last.pads",
}
ARMS = {
    "MiniLM, frozen": "minilm",
    "MiniLM, frozen, pads masked": "minilm_masked",
    "causal, trained along": "causal",
    "causal, trained along, pads masked": "causal_masked",
    "causal, contrastive, frozen": "contrastive",
    "causal, random, frozen": "random",
    "causal, trained along, four heads": "causal_heads",
}
MEMORIZED = ["plant_memorized", "plant_memorized.region", "confirm.1", "confirm.2", "confirm.1.region", "confirm.2.region"]
failed = checked = 0


def compare(page, label, text, values, slack=0.0):
    """Print every number of a text beside its recomputed value."""
    global failed, checked
    for printed, value in zip(NUMBER.findall(text), np.ravel(values), strict=True):
        decimals = len(printed.partition(".")[2])
        good = abs(float(printed) - value) <= 0.5001 * 10**-decimals + slack
        checked, failed = checked + 1, failed + (not good)
        print(f"{page:<13} {label:<60} {printed:>8} {value:>10.4f}{'' if good else '   DIFFERS'}")


def table(text, header):
    """The rows of the first table whose first column has this name, each a list of its cells."""
    lines = text[text.index(f"| {header} ") :].splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" |")] for line in lines[2:end]]


def interval(values):
    """Mean and 95 % t interval."""
    values = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return [values.mean(), values.mean() - half, values.mean() + half]


def exact(k, n):
    """Clopper-Pearson interval in percent."""
    return [100 * (stats.beta.ppf(0.025, k, n - k + 1) if k else 0), 100 * (stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1)]


def wilson(k, n):
    """Wilson interval in percent."""
    z2 = stats.norm.ppf(0.975) ** 2
    center, half = (k + z2 / 2) / (n + z2), (z2 * (k * (n - k) / n + z2 / 4)) ** 0.5 / (n + z2)
    return [100 * (center - half), 100 * (center + half)]


def unlikelihood(log_sigma, center, low, high):
    """Minus log-likelihood of ln(step) in (ln low, ln high] under a normal law."""
    a, b = ((np.log(np.maximum(end, 1e-9)) - center) / np.exp(log_sigma) for end in (low, high))
    a, b = np.where(a > 0, -b, a), np.where(a > 0, -a, b)
    return -np.log(np.maximum(special.ndtr(b) - special.ndtr(a), 1e-300)).sum()


def fit(low, high, x):
    """Coefficients of an interval-censored log-normal regression of (low, high] on the columns of x."""
    middle = np.log(np.where(np.isfinite(high), np.maximum(low, 55), low))
    start = np.linalg.lstsq(x, middle, rcond=None)[0]
    return optimize.minimize(lambda p: unlikelihood(p[0], x @ p[1:], low, high), [-1, *start], method="BFGS").x[1:]


def emergence(rows, measure, kind, suffix="", threshold=None, confirm=True):
    """(low, high] of every plant: memorized at `high` and at the two evaluations, or confirmations, after it."""
    own = rows[(rows.kind == kind) & (rows.measure == measure + suffix) & ((rows.seed >= 0) == (threshold is not None))]
    good = own.value >= 0.5 if threshold is None else own.value < threshold
    memorized = good.groupby([own.plant_id, own.step]).mean().unstack() >= 0.5
    steps, found = memorized.columns, {}
    again = rows[(rows.kind == kind) & rows.measure.isin([f"confirm.{i}{suffix}" for i in (1, 2)])].sort_values("measure")
    for plant, row in memorized.iterrows():
        extra = list(again[again.plant_id == plant].value >= 0.5) if confirm else []
        states = [*row, *extra]
        first = next((i for i in range(len(row)) if i + 2 < len(states) and all(states[i : i + 3])), None)
        last = max([0, *np.flatnonzero(~row.to_numpy())]) if confirm is False or not extra else len(row) - 1
        found[plant] = (steps[last], np.inf) if first is None else (steps[max(first - 1, 0)], steps[first])
    return found


def load(folder, pattern, *measures):
    """Name, options, rows and plants of every committed run."""
    for run in sorted((FINDINGS / folder).glob(pattern)):
        columns = ["step", "plant_id", "kind", "seed", "measure", "value"]
        rows = pd.read_parquet(run / "measurements.parquet", columns=columns, filters=[("measure", "in", measures)] if measures else None)
        text = (run / "config.yaml").read_text()
        found = {k: re.search(rf"^\s*{k}: (\d+)", text, re.M) for k in ("seed_everything", "set_size")}  # a recipe may leave the size open
        option = {k: int(match[1]) for k, match in found.items() if match}
        plants = run / "plants" / "metadata.jsonl"
        listed = pd.read_json(plants, lines=True) if plants.exists() else pd.DataFrame()
        yield run.name, option, rows, listed.set_index("plant_id") if len(listed) else None


def arms(runs, **rule):
    """One row for each plant of the runs, its interval inside the mask of its template (`low`, `high`)."""
    found = []
    for _, option, rows, plants in runs:
        for kind, suffix in (("global", ".region"), ("local", "")):
            for plant, (low, high) in emergence(rows, kind=kind, suffix=suffix, **rule).items():
                found.append({**option, "kind": kind, "low": low, "high": high, **plants.loc[plant, ["cluster", "copies", "area"]]})
    return pd.DataFrame(found).astype({"low": float, "high": float, "area": float, "copies": float, "cluster": int})


def difference(found, *covariates):
    """ln(step) of local minus global plants, one value for each seed."""

    def one(t):
        x = np.column_stack([np.ones(len(t)), t.kind == "local", *(np.log(t[c].astype(float)) for c in covariates)])
        return fit(t.low.to_numpy(), t.high.to_numpy(), x.astype(float))[1]

    return [one(t) for _, t in found.groupby("seed_everything")]


def first(found):
    """Number of templates whose local plant is first, whose global plant is, and undecided ones."""
    wide = found.pivot(index=["seed_everything", "set_size", "cluster"], columns="kind", values=["low", "high"])
    local = (wide["high", "local"] <= wide["low", "global"]).sum()
    whole = (wide["high", "global"] <= wide["low", "local"]).sum()
    return [local, whole, len(wide) - local - whole]


def photographs():
    """Differences, medians and controls of E1."""
    page = (FINDINGS / "photographs.md").read_text()
    for part in re.split(r"^## ", page, flags=re.M)[1:]:
        if not (name := {"CIFAR-10": "cifar10", "CelebA": "celeba", "Oxford Flowers 102": "flowers102"}.get(part.splitlines()[0])):
            continue
        runs = list(load("photographs", f"photographs-{name}-*", *MEMORIZED, "calibrated_l2", "nn_ratio", "nn_ratio.region"))
        found = arms(runs, measure="plant_memorized")
        seeds = difference(found, "copies")
        numbers = re.search(r"difference (.*?)\. Over (\d+) .*: (local plant first .*)\.", part)
        compare(name, "difference, factor, seeds", numbers[1], [*interval(seeds), *np.exp(interval(seeds)), *seeds], 0.02)
        compare(name, "local first, global first, undecided", numbers[3], first(found))
        for label, _, value, _, _ in table(part, "rule or subset"):
            if label == "d1/d2 below 1/3":
                other = arms(runs, measure="nn_ratio", threshold=1 / 3, confirm=False)
                compare(name, label, value, interval(difference(other, "copies")), 0.03)
            elif copies := re.search(r"(\d+) copies", label):
                compare(name, label, value, interval(difference(found[found.copies == int(copies[1])])), 0.02)
        whole = [(m, p, emergence(r, "plant_memorized", k)) for _, _, r, m in runs for k in ("global", "local") for p in [k]]
        for kind, n, copies, emerged, step, exposures in table(part, "kind"):
            if kind != "phantom":
                ends = sorted(high for m, k, e in whole if k == kind for p, (_, high) in e.items() if m.copies[p] == int(copies))
                k, median = int(np.isfinite(ends).sum()), ends[(len(ends) + 1) // 2 - 1]
                compare(name, f"{kind}, {copies} copies", re.sub(r"%|\(95.*", "", emerged), [k, len(ends), *wilson(k, len(ends))])
                rate = 32 * int(copies) / (int(n) + runs[0][3].copies.sum())
                compare(name, f"{kind}, {copies} copies, medians", f"{step.split()[0]} {exposures.split()[0]}", [median, median * rate])
        controls(name, part, runs)
    for part in page.split("\n### ")[1:]:
        detection("photographs", part)


def controls(name, part, runs):
    """Distinct images that are memorized at the end of a run, by both rules; controls with near-duplicates are a kind."""
    sizes = pd.read_csv(FINDINGS / "photographs" / "clusters.csv")
    families = sizes[sizes["size"] > 1].groupby("run").plant_id.agg(set)
    for kind, rule, value in table(part, "distinct items"):
        measure, limit = ("nn_ratio", 1 / 3) if "d1" in rule else ("calibrated_l2", 1)
        items, copied = set(), set()
        for run, option, rows, plants in runs:
            kinds = rows.kind.mask((rows.kind == "control") & rows.plant_id.isin(families.get(run, set())), "control_family")
            own = rows[(kinds == kind) & (rows.measure == measure) & (rows.step == rows.step.max())]
            for plant, share in (own.value < limit).groupby(own.plant_id).mean().items():
                key = (option["seed_everything"], plants.cluster[plant] if kind == "phantom" else plant)
                items.add(key), copied.add(key) if share >= 0.5 else None
        compare(name, f"{kind} {rule}", value.replace("%", ""), [len(copied), len(items), *exact(len(copied), len(items))])


def emergences():
    """The paired difference, controls of the pipeline and tau_mem."""
    page = (FINDINGS / "emergence.md").read_text()
    found = arms(load("emergence", "paired_arms-*", *MEMORIZED), measure="plant_memorized")
    seeds = difference(found, "copies", "set_size")
    numbers = " ".join(re.search(r"difference of ln\(step\) ([^(]*)\(seeds: ([^)]*)\), a factor of (.*?), over", page).groups())
    compare("emergence", "difference, seeds, factor", numbers, [*interval(seeds), *seeds, *np.exp(interval(seeds))], 0.03)
    compare("emergence", "local first, global first, undecided", re.search(r"emerged first: (.*?)\.", page)[1], first(found))
    for control, calibrated, ratio, *_ in table(page, "control"):
        rows = pd.read_parquet(FINDINGS / "emergence" / "controls" / control / "extract.parquet")
        counts = [(rows.calibrated_l2 < 1).sum(), len(rows), (rows.nn_ratio < 1 / 3).sum(), len(rows)]
        compare("emergence", f"control {control}", calibrated.split(" (")[0] + " " + ratio, counts)
    taus, ends = {}, []
    for name, _, rows, _ in load("emergence", "sizes-*", "nn_ratio"):
        tau, *between = onset(rows, "nn_ratio", 1 / 3)
        taus.setdefault(name.split("-")[1], []).append(tau)
        ends.append((float(name.split("-")[1]), *between))
    for n, _, _, tau, *_ in table(page, "n  "):
        compare("emergence", f"tau_mem, n = {n}", tau, sorted(taus[n]), 1)
    laws(page, *np.array(ends).T)
    plants = paired_plants()
    start_ups(page[page.index("| emergence of | start-up") :], plants)
    slopes(page[page.index("### Local against global") :], plants)


def onset(rows, measure, limit):
    """Step at which 10 % of the generations are copies, interpolated in ln(step), and the evaluations around it; None without."""
    own = rows[(rows.measure == measure) & (rows.kind == "unprompted")]
    share = (own.value < limit).groupby(own.step).mean()
    if not (share > 0.1).any():
        return None
    after = np.flatnonzero(share > 0.1)[0]
    (s0, s1), (f0, f1) = np.log(np.maximum(share.index[after - 1 : after + 1], 1)), share.iloc[after - 1 : after + 1]
    return np.exp(s0 + (0.1 - f0) / (f1 - f0) * (s1 - s0)), *share.index[after - 1 : after + 1]


def photograph_sizes():
    """tau_mem and the counts of copies of E2, by both rules."""
    page = FINDINGS / "photograph_sizes.md"
    for part in re.split(r"^## ", page.read_text(), flags=re.M)[1:] if page.is_file() else ():
        dataset = {"CelebA": "celeba", "Oxford Flowers 102": "flowers102"}[part.splitlines()[0]]
        runs = {name: rows for name, _, rows, _ in load("photograph_sizes", f"photograph_sizes-{dataset}-*", "calibrated_l2", "nn_ratio")}
        if not runs:
            continue
        for n, seed, *cells in table(part[part.index("\n| n ") :], "n"):
            for cell, rule in zip(cells[::2], (("calibrated_l2", 1), ("nn_ratio", 1 / 3)), strict=True):
                if "after" not in cell:
                    tau = onset(runs[f"photograph_sizes-{dataset}-{n}-{seed}"], *rule)[0]
                    compare("E2", f"{dataset}, n = {n}, seed {seed}, {rule[0]}", cell, [tau], 0.5)
        exponents(dataset, part, runs)
        for n, seed, rule, _, *cells in table(part[part.rindex("\n| n ", 0, part.index("| generations at the end")) :], "n"):
            measure, limit = ("nn_ratio", 1 / 3) if "d1" in rule else ("calibrated_l2", 1)
            name = FINDINGS / "photograph_sizes" / f"extract-photograph_sizes-{dataset}-{n}-{seed}"
            files = (name / "extract.parquet", *(Path(f"{name}-disjoint") / f"{file}.parquet" for file in ("extract", "unseen")))
            for cell, file in [(cell, file) for cell, file in zip(cells, files, strict=True) if cell != "-"]:
                values = pd.read_parquet(file)[measure]
                compare("E2", f"{dataset}, n = {n}, seed {seed}, {file.stem}", cell.split(" (")[0], [(values < limit).sum(), len(values)])


def exponents(dataset, part, runs):
    """The slope of ln(tau_mem) over ln(n) of each seed of E2, and their t interval."""
    for (rule, used, cell, *_), limits in zip(table(part, "tau_mem by"), (("calibrated_l2", 1), ("nn_ratio", 1 / 3)), strict=True):
        if cell == "-":
            continue
        by_seed = {}
        for name, rows in runs.items():
            n, seed = name.split("-")[2:]
            if n in used.split(", ") and (found := onset(rows, *limits)):
                by_seed.setdefault(seed, []).append(np.log([float(n), found[0]]))
        own = [np.polyfit(*np.transpose(pairs), 1)[0] for _, pairs in sorted(by_seed.items()) if len(pairs) > 1]
        compare("E2", f"{dataset}, slope by {rule}", cell, [*interval(own), *own])


def laws(page, n, low, high):
    """The power law and the linear law of tau_mem over the number of images: parameters and minus log-likelihood."""
    for _, axis, law, parameters, value in table(page, "emergence of"):
        if axis == "images":
            power = law == "c x^a"
            center = (lambda p: p[1] + p[2] * np.log(n)) if power else (lambda p: np.log(np.exp(p[1]) + np.exp(p[2]) * n))
            starts = [(-1, 4, 0.7)] if power else [(-1, 5, 2)]
            best = optimize.minimize(lambda p, of=center: unlikelihood(p[0], of(p), low, high), starts[0], method="Nelder-Mead")
            sigma, first, second = np.exp(best.x)
            found = [first, best.x[2], sigma] if power else [first, second, sigma]
            for text, result in zip(re.findall(r"= ([-\d.]+)", parameters), found, strict=True):
                compare("emergence", f"{law}, {axis}", text, [result], 0.01 * abs(result))
            compare("emergence", f"{law}, {axis}, minus log-likelihood", value, [best.fun], 0.05)


def paired_plants():
    """One row for each plant of the paired runs: its interval (low, high] of emergence and what it depends on."""
    found = []
    for _, option, rows, plants in load("emergence", "paired_arms-*", *MEMORIZED):
        for kind in ("global", "local"):
            for plant, (low, high) in emergence(rows, "plant_memorized", kind).items():
                copies, area = plants.loc[plant, ["copies", "area"]]
                rate = 32 * copies / (option["set_size"] + plants.copies.sum())
                found.append((option["seed_everything"], kind, low, high, rate, option["set_size"], copies, area))
    own = pd.DataFrame(found, columns=["seed", "kind", "low", "high", "rate", "n", "copies", "area"])
    return own.astype({"copies": float, "area": float})


def start_ups(part, plants):
    """Minus the log-likelihood of each start-up law: constant, growing with the set, and none."""
    for kind, law, _, value in table(part, "emergence of"):
        own = plants[plants.kind == kind]
        n, wait, low, high = np.log(own.n.to_numpy(float)), -np.log(own.rate.to_numpy()), own.low.to_numpy(), own.high.to_numpy()
        if law.startswith("none"):
            design = np.column_stack([np.ones(len(own)), n, np.log(own.copies)])
            center, start = (lambda p, x=design: x @ p[1:]), [-1, *fit(low, high, design)]
        elif law.startswith("constant"):
            center, start = (lambda p, w=wait: np.logaddexp(p[1], p[2] + w)), [-1, 4, 5]
        else:
            center, start = (lambda p, w=wait, n=n: np.logaddexp(p[1] + p[3] * n, p[2] + w)), [-1, 2, 5, 0.5]
        options = {"maxiter": 4000, "maxfev": 4000}
        best = optimize.minimize(
            lambda p, of=center, a=low, b=high: unlikelihood(p[0], of(p), a, b), start, method="Nelder-Mead", options=options
        )
        compare("emergence", f"start-up of {kind}, {law}", value, [best.fun], 0.05)


def slopes(part, own):
    """Slopes of ln(emergence) of plants on images, copies and area, a fit for each seed."""
    fits = {}
    for kind, axis, name, value, *_ in table(part, "emergence of"):
        names = ["n", "copies"] if kind == "global" else ["n", "copies", "area"]
        for _, t in own[own.kind == kind].groupby("seed") if (kind, axis) not in fits else ():
            unit = t.rate if axis == "exposures" else 1
            x = np.column_stack([np.ones(len(t)), np.log(t[names].to_numpy())])
            fits.setdefault((kind, axis), []).append(fit((t.low * unit).to_numpy(), (t.high * unit).to_numpy(), x)[1:])
        values = np.array(fits[kind, axis])[:, names.index(name.removeprefix("ln "))]
        compare("emergence", f"slope of {kind}, {axis}, on {name}", value, interval(values), 0.01)


def auc(positive, negative):
    """Area under the ROC curve; ties count half."""
    a, b = np.asarray(positive)[:, None], np.asarray(negative)
    return (a > b).mean() + (a == b).mean() / 2


def pairs(run):
    """Tints and memorized local plants with guidance norms within 10 %: pairs, tints, plants, mean difference of the map's AUC."""
    rows = next(load("localization", run))[2]
    mean = rows[rows.step == rows.step.max()].groupby(["measure", "kind", "plant_id"]).value.mean()
    norm, area, copied = (mean[name] for name in ("guidance_norm.all", "auc.score_difference.summed", "plant_memorized"))
    plants = [p for p in norm["local"].index if copied["local"][p] >= 0.5]
    found = [(t, p) for t in norm["tint"].index for p in plants if abs(norm["local"][p] - norm["tint"][t]) <= 0.1 * norm["tint"][t]]
    tints, own = ({pair[i] for pair in found} for i in (0, 1))
    return [len(found), len(tints), len(own), np.mean([area["local"][p] - area["tint"][t] for t, p in found])]


def memorized_counts(page, means):
    """Memorized plants of each kind, controls that are alone in their cluster apart from those of natural families."""
    names, clusters = [name for name, *_ in load("localization", "*-?")], pd.read_csv(FINDINGS / "localization" / "clusters.csv")
    for kind, cell, *_ in table(page, "kind"):
        verdicts = [m["plant_memorized", kind.removesuffix("_family")] for _, m in means]
        if kind.startswith("control"):
            alone = [clusters[(clusters.run == name) & (clusters["size"] == 1)].plant_id for name in names]
            verdicts = [v[v.index.isin(a) == (kind == "control")] for v, a in zip(verdicts, alone, strict=True)]
        counts = np.sum([(v.sum(), len(v)) for v in verdicts], axis=0)
        compare("localization", f"memorized, {kind}", cell.split(" (")[0], counts)


def localization():
    """AUC of two maps and of all scores on local plants, and counts."""
    page = (FINDINGS / "localization.md").read_text()
    runs = [(option["seed_everything"], rows[rows.step == rows.step.max()]) for _, option, rows, _ in load("localization", "*-?")]
    means = [(s, r.groupby(["measure", "kind", "plant_id"]).value.mean()) for s, r in runs]

    def copied(m, name):
        own = m[name, "local"]
        return own[m["plant_memorized", "local"].reindex(own.index) >= 0.5]

    def both(function):
        values = [(s, function(m)) for s, m in means]
        return [np.mean([v for _, v in values]), *(np.mean([v for s, v in values if s == seed]) for seed in (0, 1))]

    for name in ("score_difference.summed", "patch_nearness"):
        for kind in ("local", "tint"):
            text = re.search(rf"^\d+\. `{re.escape(name)}`.*?{kind} ([\d.]+ \([^)]*\))", page, re.M)[1]
            compare(
                "localization",
                f"{name}, {kind}",
                text,
                both(lambda m, n=f"auc.{name}", k=kind: (copied(m, n) if k == "local" else m[n, k]).mean()),
            )
    local = page[page.index("### Local plants\n") :]
    for name, *cells in table(local, "local plants against"):
        for kind, cell in zip(("phantom", "control", "decoy", "tint"), cells, strict=True):
            if "[" not in cell:
                compare("localization", f"{name}, local against {kind}", cell, both(lambda m, n=name, k=kind: auc(copied(m, n), m[n, k])))
    for run, *cells in table(page[page.index("## Tints matched") :], "run"):
        compare("localization", f"matched tints, {run}", " ".join(cells), pairs(run))
    memorized_counts(page, means)


def mitigation():
    """Copies left by each mitigation, and the exact tests of the trained ones."""
    page, rows = (FINDINGS / "mitigation.md").read_text(), []
    for path in sorted((FINDINGS / "mitigation").glob("mitigation-*/plants.parquet")):
        rows.append(pd.read_parquet(path).assign(run=path.parent.name))
    own = pd.concat(rows)
    own = own[(own.measure == "memorized") & own.kind.isin(["global", "local"])]
    share = own.groupby(["run", "kind", "plant_id", "mitigation"]).value.mean().unstack() >= 0.5
    share = share[share["none"]]
    for name, *cells in table(page, "mitigation"):
        for kind, cell in zip(("global", "local"), cells, strict=False):
            left = share.xs(kind, level="kind")[name.rpartition(" ")[0] or name]
            seeds = [left[[run[-1] == "1" for run in left.index.get_level_values("run")]].sum()]
            compare("mitigation", f"{name}, {kind}", cell, [left.sum(), len(left), left.sum() - seeds[0], *seeds])
    trained = {}
    for name, _, rows, _ in load("mitigation", "mitigations-*", "plant_memorized"):
        last = rows[(rows.measure == "plant_memorized") & (rows.step == rows.step.max())]
        for kind in ("global", "local"):
            trained.setdefault((name.split("-")[1], kind), []).extend(last[last.kind == kind].value)
    for line in re.findall(r"^\d+\. Training with (.*\));.*", page, re.M):
        name = re.match(r"`(\w+)`", line)[1]
        for kind in ("global", "local"):
            k, n = int(sum(trained[name, kind])), len(trained[name, kind])
            text = re.search(rf"(\d+ of \d+) {kind} plants memorized \(seeds: ([^;]*); baseline: ([^)]*)\)", line)
            seeds = [int(sum(trained[who, kind][i : i + 4])) for who in (name, "none") for i in (0, 4)]
            compare("mitigation", f"{name}, {kind}", " ".join(text.groups()), [k, n, *seeds])


def follows(rows, name):
    """AUC of a map at the 3 evaluations from which a local plant stays memorized, less that at the 3 before; mean over plants."""
    own, found = rows[rows.kind == "local"], []
    area = own[(own.measure == name) & (own.seed >= 0)].groupby(["plant_id", "step"]).value.mean().unstack()
    copied = own[own.measure == "plant_memorized"].set_index(["plant_id", "step"]).value.unstack() > 0.5
    for plant, row in copied[copied.iloc[:, -1]].iterrows():
        start = 1 + max([-1, *np.flatnonzero(~row)])
        found.append(area.loc[plant].iloc[start : start + 3].mean() - area.loc[plant].iloc[max(start - 3, 0) : start].mean())
    return np.nanmean(found)


def endings():
    """Counts, maps with their t intervals over seeds, and knock-outs, of the arms in ARMS."""
    page, clusters = (FINDINGS / "endings.md").read_text(), pd.read_csv(FINDINGS / "endings" / "clusters.csv")
    runs, knocked = {}, {}
    for name, option, rows, _ in load("endings", "endings-*"):
        runs.setdefault(name.split("-")[1], {})[str(option["seed_everything"])] = rows
        knocked.setdefault(name.split("-")[1], []).append(pd.read_parquet(FINDINGS / "endings" / name / "knockout" / "knockout.parquet"))
    last = {
        arm: {s: r[r.step == r.step.max()].groupby(["measure", "kind", "plant_id"]).value.mean() for s, r in of.items()}
        for arm, of in runs.items()
    }
    for arm, seed, *cells in table(page[page.index("## Runs") :], "arm"):
        alone = clusters[(clusters.seed == int(seed)) & (clusters["size"] == 1)].plant_id
        rows = runs[ARMS[arm]][seed]
        close = rows[(rows.step == rows.step.max()) & (rows.measure == "nn_ratio")]
        close = (close.value < 1 / 3).groupby([close.kind, close.plant_id]).mean() >= 0.5
        own = last[ARMS[arm]][seed]["plant_memorized"]
        controls = own["control"]
        lone = controls.index.isin(alone)
        counts = (own["global"], own["local"], close["global"], close["local"], own["phantom"], controls[lone], controls[~lone])
        for number, (cell, verdicts) in enumerate(zip(cells, counts, strict=True)):
            compare("endings", f"{arm}, memorized, column {number + 3}", cell, [verdicts.sum(), len(verdicts)])
    for arm, name, *cells in table(page[page.index("## Maps of") :], "arm"):
        if arm in ARMS and name in MAPS:
            key, means, copied = (
                f"auc.{MAPS[name]}.all",
                last[ARMS[arm]].values(),
                [m["plant_memorized", "local"] >= 0.5 for m in last[ARMS[arm]].values()],
            )
            values = [[m[key, "local"][own].mean() for m, own in zip(means, copied, strict=True)]]
            values += [[m[key, "local"][~own].mean() for m, own in zip(means, copied, strict=True)]]
            values += [[m[key, kind].mean() for m in means] for kind in ("tint", "phantom", "decoy")]
            values += [[follows(rows, key) for rows in runs[ARMS[arm]].values()]]
            for kind, cell, of in zip(
                ("memorized", "not yet", "tint", "phantom", "decoy", "after less before"), cells, values, strict=True
            ):
                known = [value for value in of if not np.isnan(value)]
                compare("endings", f"{arm}, {name}, {kind}", cell, known + interval(known)[1:] if len(known) > 1 else known)
    for arm, name, *cells in table(page[page.index("## Knock-out") :], "arm"):
        for kind, cell in zip(("global", "local", "phantom"), cells if arm in ARMS else [], strict=False):
            rows = pd.concat(knocked[ARMS[arm]])
            own = rows[(rows.measure == "memorized") & (rows.knockout == name) & (rows.kind == kind)].value
            compare("endings", f"{arm}, {name}, {kind}", cell, [own.sum(), len(own)])


def small_sd():
    """Counts and maps of the trainings of E6, and the areas of detectors."""
    page, runs = (
        (FINDINGS / "small_sd.md").read_text(),
        [rows[rows.step == rows.step.max()] for *_, rows, _ in load("small_sd", "small_sd-?")],
    )
    means = [rows.groupby(["measure", "kind", "plant_id"]).value.mean() for rows in runs]
    for setting, seed, *cells in table(page[page.index("## Memorized") :], "setting"):
        file = {"trailing": "measurements", "leading, 1": "maps-1", "leading, 7.5": "maps-7.5"}[setting]
        rows = pd.read_parquet(FINDINGS / "small_sd" / f"small_sd-{seed}" / f"{file}.parquet")
        rows = rows[rows.step == rows.step.max()] if setting == "trailing" else rows
        kinds = ("global", "local", "phantom", "tint", "decoy", "heldout")
        columns = [("memorized", kind, 0.5, 1) for kind in kinds] + [("nn_ratio", kinds[k], -1 / 3, -1) for k in (0, 1, 4, 5)]
        for cell, (measure, kind, limit, sign) in zip(cells, columns, strict=True):
            own = rows[(rows.measure == measure) & (rows.kind == kind)]
            copied = (sign * own.value > limit).groupby(own.plant_id).mean() >= 0.5
            compare("small_sd", f"{setting}, seed {seed}, {measure}, {kind}", cell, [copied.sum(), len(copied)])
    for setting, name, *cells in table(page[page.index("## Maps of") :], "setting"):
        if setting == "trailing" and name in MAPS:
            key, copied = f"auc.{MAPS[name]}.all", [m["plant_memorized", "local"] >= 0.5 for m in means]
            values = [[m[key, "local"][own].mean() for m, own in zip(means, copied, strict=True)]]
            values += [[m[key, "local"][~own].mean() for m, own in zip(means, copied, strict=True)]]
            values += [[m[key, kind].mean() for m in means] for kind in ("tint", "phantom", "decoy")]
            for kind, cell, of in zip(("memorized", "not yet", "tint", "phantom", "decoy"), cells, values, strict=False):
                compare("small_sd", f"{name}, {kind}", cell, of)
    detection("small_sd", page)


def detection(finding, text):
    """Areas of detectors for memorized local plants against each kind of negative, of the run that the text names."""
    if not (found := re.search(r"Runs?: (\S+?)\.", text)):
        return
    rows = pd.read_parquet(FINDINGS / finding / f"detection-{found[1]}" / "detection.parquet")
    means = rows.groupby(["measure", "kind", "plant_id"]).value.mean()
    copied = means["memorized", "local"] >= 0.5
    for name, *cells in table(text, "detector"):
        for kind, cell in zip(("phantom", "control", "decoy", "tint"), cells, strict=False):
            compare(finding, f"{name} against {kind}", cell.split(" [")[0], auc(means[name, "local"][copied], means[name, kind]))


def unconditional():
    """Counts by each way of E4, completions by both rules, and maps; plants of `emergence` at the last evaluation."""
    page, ways = (FINDINGS / "unconditional.md").read_text(), {"assignment": "", "outpainting": ".outpainted", "as a whole": ".whole"}
    ways |= {"outpainting, held-out surroundings": ".outpainted_fresh", "generations of its caption": ""}
    runs = {name: rows[rows.step == rows.step.max()] for name, _, rows, _ in load("unconditional", "*-?")}
    for section in page.split("\n## ")[1:]:
        counts = section[section.rindex("\n", 0, section.index("| by ")) :]  # families have a table of orders before
        for run, way, kind, cell, _ in table(counts, "run"):
            own = runs[run][(runs[run].measure == f"plant_memorized{ways[way]}") & (runs[run].kind == kind)].value
            compare("unconditional", f"{run}, {way}, {kind}", cell.split(" (")[0], [(own >= 0.5).sum(), len(own)])
        rules = section[section.index("Both rules:") :] if "Both rules:" in section else ""
        for run, kind, *cells in table(rules, "run") if rules else []:
            for measure, limit, cell in zip(("calibrated_l2", "nn_ratio"), (1, 1 / 3), cells, strict=True):
                own = runs[run][(runs[run].measure == f"outpainted.{measure}") & (runs[run].kind == kind)].value
                compare("unconditional", f"{run}, {kind}, {measure}", cell, [(own < limit).sum(), len(own)])
        names = [run for run in runs if run.rpartition("-")[0] == section.partition(":")[0]]
        for name, *cells in table(section, "map") if "| map " in section else []:
            for kind, cell in zip(("local", "phantom"), cells, strict=False):
                maps = [runs[run][(runs[run].measure == f"auc.{name}") & (runs[run].kind == kind)] for run in names]
                found = [of.groupby("plant_id").value.mean().mean() for of in maps if len(of)]
                found += [min(max(end, 0), 1) for end in interval(found)[1:]] if len(found) > 1 else []
                compare("unconditional", f"{names[0]}, {name}, {kind}", cell, found)


def backgrounds():
    """Plants of E5 that are memorized in the region, as a whole and outside, and phantoms."""
    page = (FINDINGS / "backgrounds.md").read_text()
    for count, seed, inside, _, whole, _, outside, diversity, phantoms in table(page, "backgrounds"):
        rows = next(load("backgrounds", f"backgrounds-{0 if count == 'fresh' else count}-{seed}"))[2]
        last, label = rows[rows.step == rows.step.max()], f"{count} backgrounds, seed {seed}"
        cells = {"plant_memorized": inside, "plant_memorized.whole": whole, "local_to_global": outside}
        for measure, cell in {name: cell for name, cell in cells.items() if " of " in cell}.items():
            own = last[(last.measure == measure) & (last.kind == "local")].value
            compare("backgrounds", f"{label}, {measure}", cell.split(" (")[0], [(own >= 0.5).sum(), len(own)])
        own = last[(last.measure == "plant_memorized") & (last.kind == "phantom")].value
        compare("backgrounds", f"{label}, phantoms", phantoms.split(" (")[0], [(own >= 0.5).sum(), len(own)])
        compare(
            "backgrounds", f"{label}, outside", diversity, last[(last.measure == "outside_diversity") & (last.kind == "local")].value.mean()
        )


def quoted():
    """Estimates of the front page are those of the pages; intervals of the README are Wilson intervals of its counts."""
    text = " ".join(path.read_text() for path in FINDINGS.glob("*.md") if path.stem != "index")
    for estimate in re.findall(r"[\d.]+ \[[^\]]*\](?!\()", (FINDINGS / "index.md").read_text()):
        compare("index", estimate, f"{int(estimate in text)}", [1])
    readme, counted = (FINDINGS.parents[1] / "README.md").read_text(), demo()
    for kind, _, counts, limits in table(readme, "kind"):
        k, n = map(int, NUMBER.findall(counts))
        compare("README", f"{kind}, demo-0", counts, counted[0][kind])
        compare("README", kind, limits.replace("%", ""), wilson(k, n))


def demo():
    """Memorized items and all of each kind, a dictionary for each seed of the demo, compared with its page."""
    found = []
    for name, _, rows, _ in load("demo", "demo-*"):
        last = rows[rows.step == rows.step.max()]
        sizes = last[last.measure == "cluster_size"].set_index("plant_id").value
        kinds = last.kind.mask((last.kind == "control") & (last.plant_id.map(sizes) > 1), "control_family")
        copied = last[last.measure == "plant_memorized"].value.groupby(kinds).agg(["sum", "count"])
        close = last[last.measure == "nn_ratio"]
        close = (close.value < 1 / 3).groupby([kinds[close.index], close.plant_id]).mean().ge(0.5).groupby(level=0).agg(["sum", "count"])
        found.append(copied.T.to_dict("list"))
        page = (FINDINGS / "demo.md").read_text()
        cells = [row[2:-1] for row in table(page, "seed") if row[0] == name[-1]]
        for rule, of, own in zip(("calibrated", "d1/d2"), (copied, close), cells, strict=True):
            for kind, cell in zip(
                ("global", "local", "phantom", "control", "control_family", "decoy", "tint", "heldout"), own, strict=True
            ):
                compare("demo", f"{name}, {kind}, {rule}", cell.split(" (")[0], of.loc[kind])
    return found


SECTIONS = (
    photographs, emergences, photograph_sizes, localization, mitigation, endings, small_sd, unconditional, backgrounds, quoted,
)  # fmt: skip

if __name__ == "__main__":
    for section in SECTIONS:
        section()
    print(f"{checked} numbers, {failed} differ")
    sys.exit(failed > 0)
