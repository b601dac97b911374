"""Charts of a page as Vega-Lite specifications. The browser draws them with the library that the page embeds."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from afterglow.cache import atomic_path, cache_folder
from afterglow.functional.statistics import Estimate, bootstrap
from afterglow.kinds import KINDS, PLANTED
from afterglow.reports.run import Run

VEGA_LITE = "v6.4"
NUM_BINS = 32
PLANT_HEIGHT = 17  # pixels of a plant's line in the chart of emergence
HISTOGRAM_MAPS = ("end_token.last.first_eos.be", "end_token.last.first_eos.all")
HISTOGRAM_KINDS = ("global", "local", "phantom", "decoy", "tint")
LOSSES = {"control": "training images", "heldout": "held-out images"}
SHARED: Mapping[str, Any] = {"width": "container", "height": 240, "params": [{"name": "step", "value": 0}]}
DOT: Mapping[str, Any] = {"type": "point", "filled": True, "size": 50}
CURRENT_STEP: Mapping[str, Any] = {
    "mark": {"type": "rule", "strokeDash": [4, 3], "aria": False},
    "encoding": {"x": {"datum": {"expr": "step"}, "type": "quantitative"}},
}


def vega_script() -> str:
    """The JavaScript of Vega, Vega-Lite and vega-embed, which defines window.vegaEmbed. It is written to the cache folder once."""
    import vl_convert

    path = cache_folder() / f"vega-{version('vl-convert-python')}-{VEGA_LITE}.js"
    if not path.is_file():
        bundle = vl_convert.javascript_bundle(None, vl_version=VEGA_LITE)  # type: ignore[arg-type]  # None: vega-embed alone
        with atomic_path(path) as file:
            file.write_text(bundle, encoding="utf-8")
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


def memorized_chart(run: Run) -> dict[str, Any] | None:
    """Memorized fraction of each kind over training steps; Wilson 95 % bands of plants. A click in the legend shows one kind alone."""
    counts = {kind: max(fraction.count for fraction in fractions) for kind, fractions in run.memorized.items()}
    rows = [
        {
            "step": fraction.step,
            "kind": f"{kind} ({counts[kind]})",
            "name": kind,
            "memorized": fraction.value,
            "low": fraction.interval[0],
            "high": fraction.interval[1],
            "plants": f"{fraction.memorized:g} of {fraction.count}",
        }
        for kind, fractions in run.memorized.items()
        for fraction in fractions
    ]
    if not rows:
        return None
    names = _names(rows)
    encoding = {"x": step_axis(run.steps), "color": _color(names)}
    title = {"type": "quantitative", "title": "memorized fraction", "axis": {"format": "%"}}
    only = {"condition": {"param": "shown", "value": 1}, "value": 0.06}
    of_plants = " || ".join(f"datum.name == '{kind}'" for kind in PLANTED)  # bands of all kinds would hide each other
    default = {"test": f"!length(data('shown_store')) && ({of_plants})", "value": 0.14}
    band = {"condition": [{"param": "shown", "empty": False, "value": 0.2}, default], "value": 0.0}
    fraction = {**encoding, "y": {"field": "memorized", **title}, "opacity": only}
    legend = {"name": "shown", "select": {"type": "point", "fields": ["kind"]}, "bind": "legend"}
    return {
        **SHARED,
        "description": "Memorized fraction of each kind over training steps",
        "data": {"values": rows},
        "layer": [
            {"mark": "line", "encoding": fraction, "params": [legend]},
            {"mark": "area", "encoding": {**encoding, "y": {"field": "low", **title}, "y2": {"field": "high"}, "opacity": band}},
            {
                "mark": {"type": "point", "filled": True, "size": 50},
                "encoding": {**fraction, "shape": _shape(names), "tooltip": _tooltip(rows)},
            },
            CURRENT_STEP,
        ],
    }


def loss_chart(run: Run) -> dict[str, Any] | None:
    """Denoising loss of training images and of held-out images over training steps, with bootstrap 95 % bands over images."""
    rows = []
    means = run.rows_of("denoising_loss").groupby(["step", "kind", "plant_id"])["value"].mean()
    losses = means.groupby(level=["step", "kind"]).agg(tuple).to_dict()
    for step in run.steps:
        for kind, name in LOSSES.items():
            if (step, kind) in losses:
                found = _mean(losses[step, kind])
                rows.append({"step": int(step), "images": name, "loss": found.value, "low": found.low, "high": found.high})
    if not rows:
        return None
    color = {"field": "images", "type": "nominal", "legend": {"title": None, "orient": "top"}}
    color["scale"] = {"domain": list(LOSSES.values()), "range": [KINDS[kind].color for kind in LOSSES]}
    loss = {"type": "quantitative", "scale": {"type": "log", "nice": False}, "title": "denoising loss (MSE of the noise)"}
    encoding = {"x": step_axis(run.steps), "color": color}
    return {
        **SHARED,
        "description": "Denoising loss of training and held-out images over training steps",
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.15}, "encoding": {**encoding, "y": {"field": "low", **loss}, "y2": {"field": "high"}}},
            {"mark": "line", "encoding": {**encoding, "y": {"field": "loss", **loss}}},
            {
                "mark": {"type": "point", "filled": True},
                "encoding": {**encoding, "y": {"field": "loss", **loss}, "tooltip": _tooltip(rows)},
            },
            CURRENT_STEP,
        ],
    }


@lru_cache(maxsize=1024)  # a training draws the losses of all earlier evaluations again after each evaluation
def _mean(values: tuple[float, ...]) -> Estimate:
    return bootstrap(values)


def emergence_chart(run: Run) -> dict[str, Any] | None:
    """One line per plant over the interval of steps in which it emerged; a plant that did not emerge has an open end."""
    rows = []
    for kind in ("global", "local", "natural"):
        intervals = run.emergence["kinds"].get(kind, {}).get("intervals", {})
        for number, (low, high) in intervals.items():
            caption = run.plants.get(int(number), {}).get("text", f"plant {number}")
            label = f"{caption if len(caption) <= 18 else caption[:17] + '…'} ({number})"
            emerged = f"({low:g}, {high:g}]" if high is not None else f"not emerged by step {low:g}"
            end = {"low": low, "high": run.last if high is None else high, "open": high is None}
            rows.append({"plant": label, "kind": kind, "name": kind, "emerged": emerged, **end})
    if not rows:
        return None
    names = _names(rows)
    order = [row["plant"] for row in sorted(rows, key=lambda row: (row["open"], row["high"], row["low"]))]
    x = {**step_axis(run.steps), "field": "low"}
    encoding = {
        "y": {"field": "plant", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 170}},
        "color": _color(names),
        "tooltip": _tooltip(rows),
    }
    layers = {
        False: {
            "transform": [{"filter": "!datum.open"}],
            "mark": {"type": "rule", "strokeWidth": 6, "strokeCap": "round"},
            "encoding": {**encoding, "x": x, "x2": {"field": "high"}},
        },
        True: {
            "transform": [{"filter": "datum.open"}],
            "mark": {"type": "point", "shape": "triangle-right", "size": 110, "filled": True, "clip": False, "xOffset": -5},
            "encoding": {**encoding, "x": x | {"field": "high"}},
        },
    }
    return {
        **SHARED,
        "height": PLANT_HEIGHT * len(rows),
        "description": "Interval of training steps in which each plant emerged",
        "data": {"values": rows},
        "layer": [*(layer for opened, layer in layers.items() if any(row["open"] == opened for row in rows)), CURRENT_STEP],
    }


def end_token_chart(run: Run, steps: Sequence[int]) -> dict[str, Any] | None:
    """Histograms of the end-token map over all pixels of each kind's generations, at the evaluation that the slider selects."""
    name = next((name for name in HISTOGRAM_MAPS if all(f"map/{name}" in run.evaluations[step].names for step in steps)), None)
    if name is None or not steps:
        return None
    kind_of = run.rows.drop_duplicates("plant_id").set_index("plant_id")["kind"]
    values = {step: run.evaluations[step].tensor(f"map/{name}").astype(np.float64) for step in steps}
    positive = np.concatenate([maps.ravel() for maps in values.values()])
    edges = np.geomspace(np.quantile(positive[positive > 0], 0.001), positive.max(), NUM_BINS + 1)
    rows = []
    for step, maps in values.items():
        kinds = np.array([kind_of.get(number, "") for number, _ in run.evaluations[step].row])
        for kind in [kind for kind in HISTOGRAM_KINDS if (kinds == kind).any()]:
            share = np.histogram(maps[kinds == kind].clip(edges[0], edges[-1]), edges)[0] / maps[kinds == kind].size
            rows += [
                {"step": step, "kind": kind, "name": kind, "from": float(f"{a:.4g}"), "to": float(f"{b:.4g}"), "share": round(s, 5)}
                for a, b, s in zip(edges[:-1], edges[1:], share.tolist(), strict=True)
            ]
    if not rows:
        return None
    names = _names(rows)
    mark = {"type": "area", "interpolate": "step-after", "fillOpacity": 0.06, "line": True}
    return {
        **SHARED,
        "description": f"Histograms of the end-token map {name} for each kind at the selected training step",
        "title": {"text": f"map {name}", "fontWeight": "normal", "fontSize": 12, "anchor": "start"},
        "data": {"values": rows},
        "transform": [{"filter": "datum.step == step"}],
        "mark": mark,
        "encoding": {
            "x": {
                **{"field": "from", "type": "quantitative", "scale": {"type": "log"}, "axis": {"labelOverlap": "greedy"}},
                "title": "attention of a pixel to the end token",
            },
            "y": {"field": "share", "type": "quantitative", "stack": None, "title": "share of pixels"},
            "color": _color(names),
        },
    }


def _names(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Labels of the kinds and their names, in the order of the rows."""
    return list(dict.fromkeys((str(row["kind"]), str(row["name"])) for row in rows))


def _tooltip(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    hidden = ("name", "open")
    shown = {name: value for name, value in rows[0].items() if name not in hidden}
    return [{"field": name, "format": ".3~f"} if isinstance(value, float) else {"field": name} for name, value in shown.items()]


def step_axis(steps: Sequence[int]) -> dict[str, Any]:
    """Steps on a logarithmic axis with a place for step 0."""
    positive = [step for step in steps if step > 0]
    ticks = [0, *positive[::-1][:: max(1, -(-len(positive) // 7))][::-1]]
    scale = {"type": "symlog", "constant": min(positive, default=1), "domain": [min(steps), max(steps)], "nice": False, "padding": 8}
    return {"field": "step", "type": "quantitative", "title": "training step", "scale": scale, "axis": {"values": ticks, "format": "d"}}


def _color(names: Iterable[tuple[str, str]]) -> dict[str, Any]:
    labels, kinds = zip(*names, strict=True)
    scale = {"domain": list(labels), "range": [KINDS[kind].color for kind in kinds]}
    return {"field": "kind", "type": "nominal", "scale": scale, "legend": {"title": None, "orient": "top"}}


def _shape(names: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Shapes beside colors, for readers who do not see the colors."""
    shapes = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left", "triangle-right", "stroke")
    labels = [label for label, _ in names]
    return {"field": "kind", "type": "nominal", "scale": {"domain": labels, "range": list(shapes[: len(labels)])}}
