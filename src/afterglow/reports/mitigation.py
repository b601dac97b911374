"""What mitigations did, as a table, as curves over their strengths, and as images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.generations import Generations
from afterglow.reports.bench import PLAIN, interval, text_table

COLUMNS = {  # (kind, measure) => head
    ("global", "memorized"): "memorized global",
    ("local", "memorized"): "memorized local",
    ("natural", "memorized"): "memorized natural",
    ("local", "local_to_global"): "local->global",
    ("control", "memorized"): "memorized control",
    ("global", "sscd"): "SSCD global",
    ("local", "sscd"): "SSCD local",
    ("global", "correlation.inside"): "correlation global",
    ("local", "correlation.inside"): "correlation inside",
    ("local", "correlation.outside"): "correlation outside",
    ("heldout", "distance.training"): "held-out, distance",
    ("heldout", "caption_agreement"): "held-out, cross_seed_std",
    ("all", "cost.seconds"): "seconds",
    ("all", "cost.evaluations"): "evaluations",
    ("all", "cost.gflops"): "GFLOPs, first caption",
}
WITHOUT_INTERVAL = ("cost.", "frechet.")
QUALITIES = (("heldout", "frechet."), ("heldout", "distance.training"), ("all", "cost.evaluations"))  # the first that is there
JUDGED = ("memorized", "sscd")
KINDS = ("global", "local", "natural", "prompt")
MARKERS = "osDv^<>PX*hp"
SHOWN = 3  # plants of each kind in the gallery


def mitigation_text(table: pd.DataFrame) -> str:
    """A row a mitigation and strength, none first; absent numbers have no column."""
    known = set(zip(table["kind"], table["measure"], strict=True))
    heads = {key: head for key, head in COLUMNS.items() if key in known}
    heads |= {key: f"held-out, {key[1]}" for key in sorted(known) if key[1].startswith("frechet.")}
    counts = {(row.kind, row.measure): row.plants for row in table.itertuples()}
    cells = {(row.mitigation, row.strength, row.kind, row.measure): _cell(row) for row in table.itertuples()}
    lines = []
    for mitigation, strength in dict.fromkeys(zip(table["mitigation"], table["strength"], strict=True)):
        label = mitigation if mitigation == BASELINE else f"{mitigation} {strength:g}"
        lines.append([label, *(cells.get((mitigation, strength, *key), "-") for key in heads)])
    head = [text if key[1].startswith(WITHOUT_INTERVAL) else f"{text} ({counts[key]})" for key, text in heads.items()]
    return text_table(["mitigation", *head], lines)


def _cell(row: Any) -> str:
    return f"{row.value:.3g}" if row.measure.startswith(WITHOUT_INTERVAL) else interval(row)


def tradeoff_figure(table: pd.DataFrame, paths: Sequence[Path]) -> bool:
    """Copies against quality (Frechet distance, else distance of held-out captions, else cost), a curve a mitigation over its strengths.

    A panel a kind; the square is the untouched model. False where nothing tells copies, so that nothing is drawn.
    """
    known = list(dict.fromkeys(zip(table["kind"], table["measure"], strict=True)))
    judged = next((name for name in JUDGED if any(key == (kind, name) for kind in KINDS for key in known)), None)
    quality = next((key for kind, start in QUALITIES for key in known if key[0] == kind and key[1].startswith(start)), None)
    if judged is None or quality is None:
        return False
    kinds = [kind for kind in KINDS if (kind, judged) in known]
    x = table[(table["kind"] == quality[0]) & (table["measure"] == quality[1])].set_index(["mitigation", "strength"])["value"]
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(1.5 + 4 * len(kinds), 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0], kinds, strict=True):
            _curves(axes, table[(table["kind"] == kind) & (table["measure"] == judged)], x)
            axes.set(title=kind, xlabel=" ".join(quality), ylabel=judged if kind == kinds[0] else "")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7, frameon=False)
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return True


def _curves(axes: Axes, table: pd.DataFrame, x: pd.Series) -> None:
    for place, (mitigation, some) in enumerate(table.groupby("mitigation", sort=False)):
        some = some.sort_values("strength")
        at = x.reindex(pd.MultiIndex.from_frame(some[["mitigation", "strength"]])).to_numpy()
        spread = np.stack([some["value"] - some["low"], some["high"] - some["value"]]).clip(0)
        own: dict[str, Any] = {"color": colormaps["tab20"](place % 20), "marker": MARKERS[place % len(MARKERS)]}
        look = {"color": "black", "marker": "s", "zorder": 5} if mitigation == BASELINE else own
        axes.errorbar(at, some["value"], yerr=spread, label=str(mitigation), markersize=4, linewidth=1, elinewidth=0.5, **look)


def mitigation_gallery(shown: Mapping[str, Mapping[int, Generations]], paths: Sequence[Path]) -> None:
    """A row a plant (the first few of each kind, by number), a column a mitigation: the first seed of each; the planted image at the left.

    shown: {label: what first_generations finds}.
    """
    first = next(iter(shown.values()))
    chosen, columns = _chosen(first), ["planted", *shown]
    figure = Figure(figsize=(0.95 * len(columns) + 0.5, 0.95 * len(chosen) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(len(chosen), len(columns), squeeze=False)
    for line, number in zip(cells, chosen, strict=True):
        planted = first[number].references if first[number].kind[0] in KINDS else None
        images = [None if planted is None else planted[0], *(found[number].images[0] for found in shown.values())]
        for cell, image in zip(line, images, strict=True):
            if image is not None:
                cell.imshow(image.movedim(0, -1).squeeze(-1).numpy(), cmap="gray", interpolation="nearest")
        _outline(line[0], first[number])
    for cell in cells.flat:
        cell.set_axis_off()
    for cell, title in zip(cells[0], columns, strict=True):
        name, _, strength = title.partition(" ")
        cell.set_title(name.replace(".", ".\n") + f"\n{strength}" * bool(strength), fontsize=6)
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _outline(axes: Axes, one: Generations) -> None:
    axes.text(-0.08, 0.5, one.kind[0], transform=axes.transAxes, fontsize=6, ha="right", va="center")
    if one.eval_mask is not None and not one.eval_mask[0].all():
        axes.contour(one.eval_mask[0, 0].numpy(), levels=[0.5], colors="red", linewidths=0.8)


def first_generations(parts: Sequence[Generations]) -> dict[int, Generations]:
    """The first generation of each plant or caption."""
    found: dict[int, Generations] = {}
    for part in parts:
        assert part.plant_id is not None
        for row, number in enumerate(part.plant_id.tolist()):
            if number not in found:
                found[number] = part[[row]]
    return found


def _chosen(firsts: Mapping[int, Generations]) -> list[int]:
    by_kind: dict[str, list[int]] = {}
    for number, one in firsts.items():
        by_kind.setdefault(one.kind[0], []).append(number)
    return [number for kind in sorted(by_kind, key=lambda kind: kind not in KINDS) for number in by_kind[kind][:SHOWN]]
