"""Results of `afterglow mitigate`: a table, curves over strengths, and a gallery."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from afterglow.analysis.mitigation_effect import BASELINE
from afterglow.generations import Generations
from afterglow.kinds import CONTROL_FAMILY
from afterglow.reports.figures import PLAIN_STYLE, new_figure, save_figure
from afterglow.reports.tables import interval_text, text_table

_COLUMNS = {  # {(kind, measure): title}
    ("global", "memorized"): "memorized global",
    ("local", "memorized"): "memorized local",
    ("natural", "memorized"): "memorized natural",
    ("local", "local_to_global"): "local copied whole",
    ("control", "memorized"): "memorized control",
    (CONTROL_FAMILY, "memorized"): "memorized control of a family",
    ("global", "sscd"): "SSCD global",
    ("local", "sscd"): "SSCD local",
    ("global", "correlation.inside"): "correlation global",
    ("local", "correlation.inside"): "correlation inside",
    ("local", "correlation.outside"): "correlation outside",
    ("heldout", "distance.training"): "held-out, distance",
    ("heldout", "caption_agreement"): "held-out, caption agreement",
    ("all", "cost.seconds"): "seconds",
    ("all", "cost.evaluations"): "evaluations",
    ("all", "cost.gflops"): "GFLOPs, first caption",
}
WITHOUT_INTERVAL = ("cost.", "frechet.")
QUALITIES = (("heldout", "frechet."), ("heldout", "distance.training"), ("all", "cost.evaluations"))  # the first that was measured
_COPY_MEASURES = ("memorized", "sscd")  # likewise
_KINDS = ("global", "local", "natural", "prompt")
MARKERS = "osDv^<>PX*hp"
PLANTS_PER_KIND = 3  # in the gallery


def mitigation_text(table: pd.DataFrame) -> str:
    """One row per mitigation and strength of `mitigation_table`, the baseline first; what was not measured has no column."""
    known = set(zip(table["kind"], table["measure"], strict=True))
    heads = {key: head for key, head in _COLUMNS.items() if key in known}
    heads |= {key: f"held-out, {key[1]}" for key in sorted(known) if key[1].startswith("frechet.")}
    counts = {(row.kind, row.measure): row.plants for row in table.itertuples()}
    cells = {
        (row.mitigation, row.strength, row.kind, row.measure): f"{row.value:.3g}"
        if str(row.measure).startswith(WITHOUT_INTERVAL)
        else interval_text(row)
        for row in table.itertuples()
    }
    lines = []
    for mitigation, strength in dict.fromkeys(zip(table["mitigation"], table["strength"], strict=True)):
        label = mitigation if mitigation == BASELINE else f"{mitigation} {strength:g}"
        lines.append([label, *(cells.get((mitigation, strength, *key), "-") for key in heads)])
    head = [text if key[1].startswith(WITHOUT_INTERVAL) else f"{text} ({counts[key]})" for key, text in heads.items()]
    return text_table(["mitigation", *head], lines)


def tradeoff_figure(table: pd.DataFrame, paths: Sequence[Path]) -> bool:
    """Copies against quality, one panel per kind and one curve per mitigation over its strengths; the square is the baseline.

    Quality is the Frechet distance, otherwise the distance of held-out captions to the training set, otherwise the cost.
    False if copies or quality were not measured, so that nothing is drawn.

    Args:
        table: as `mitigation_table` returns it.
        paths: files to write.
    """
    known = list(dict.fromkeys(zip(table["kind"], table["measure"], strict=True)))
    copies = next((name for name in _COPY_MEASURES if any(key == (kind, name) for kind in _KINDS for key in known)), None)
    quality = next((key for kind, start in QUALITIES for key in known if key[0] == kind and key[1].startswith(start)), None)
    if copies is None or quality is None:
        return False
    kinds = [kind for kind in _KINDS if (kind, copies) in known]
    x = table[(table["kind"] == quality[0]) & (table["measure"] == quality[1])].set_index(["mitigation", "strength"])["value"]
    with matplotlib.rc_context(PLAIN_STYLE):
        figure = new_figure(1.5 + 4 * len(kinds), 4.6)
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0], kinds, strict=True):
            _curves(axes, table[(table["kind"] == kind) & (table["measure"] == copies)], x)
            axes.set(title=kind, xlabel=" ".join(quality), ylabel=copies if kind == kinds[0] else "")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7, frameon=False)
        save_figure(figure, paths)
    return True


def _curves(axes: Axes, table: pd.DataFrame, x: pd.Series) -> None:
    for place, (mitigation, part) in enumerate(table.groupby("mitigation", sort=False)):
        part = part.sort_values("strength")
        at = x.reindex(pd.MultiIndex.from_frame(part[["mitigation", "strength"]])).to_numpy()
        errors = np.stack([part["value"] - part["low"], part["high"] - part["value"]]).clip(0)
        style: dict[str, Any] = {"color": colormaps["tab20"](place % 20), "marker": MARKERS[place % len(MARKERS)]}
        style = {"color": "black", "marker": "s", "zorder": 5} if mitigation == BASELINE else style
        axes.errorbar(at, part["value"], yerr=errors, label=str(mitigation), markersize=4, linewidth=1, elinewidth=0.5, **style)


def mitigation_gallery(columns: Mapping[str, Mapping[int, Generations]], paths: Sequence[Path]) -> None:
    """One row per plant (the first of each kind), one column per mitigation: the first seed; the planted image at the left.

    Args:
        columns: {label: first_generations of that collection}, the baseline first.
        paths: files to write.
    """
    baseline = next(iter(columns.values()))
    numbers, titles = _first_of_each_kind(baseline), ["planted", *columns]
    figure = new_figure(0.95 * len(titles) + 0.5, 0.95 * len(numbers) + 0.6)
    cells = figure.subplots(len(numbers), len(titles), squeeze=False)
    for line, number in zip(cells, numbers, strict=True):
        planted = baseline[number].references if baseline[number].kind[0] in _KINDS else None
        images = [None if planted is None else planted[0], *(firsts[number].images[0] for firsts in columns.values())]
        for axes, image in zip(line, images, strict=True):
            if image is not None:
                axes.imshow(image.movedim(0, -1).squeeze(-1).numpy(), cmap="gray", interpolation="nearest")
        _outline(line[0], baseline[number])
    for axes in cells.flat:
        axes.set_axis_off()
    for axes, title in zip(cells[0], titles, strict=True):
        name, _, strength = title.partition(" ")
        axes.set_title(name.replace(".", ".\n") + f"\n{strength}" * bool(strength), fontsize=6)
    save_figure(figure, paths)


def _outline(axes: Axes, generation: Generations) -> None:
    axes.text(-0.08, 0.5, generation.kind[0], transform=axes.transAxes, fontsize=6, ha="right", va="center")
    if generation.eval_mask is not None and not generation.eval_mask[0].all():
        axes.contour(generation.eval_mask[0, 0].numpy(), levels=[0.5], colors="red", linewidths=0.8)


def first_generations(parts: Sequence[Generations]) -> dict[int, Generations]:
    """{plant_id: the first generation of each plant or caption}."""
    firsts: dict[int, Generations] = {}
    for part in parts:
        assert part.plant_id is not None
        new = pd.Series(part.plant_id.numpy()).drop_duplicates()
        firsts |= {int(number): part[[int(row)]] for row, number in new.items() if number not in firsts}
    return firsts


def _first_of_each_kind(firsts: Mapping[int, Generations]) -> list[int]:
    kinds = pd.Series({number: generation.kind[0] for number, generation in firsts.items()})
    first = kinds.groupby(kinds, sort=False).head(PLANTS_PER_KIND)
    order = sorted(first.unique(), key=lambda kind: kind not in _KINDS)
    return [int(number) for kind in order for number in first.index[first == kind]]
