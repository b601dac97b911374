"""report.html of a run: one page that needs no server, no network and no other file."""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from afterglow.analysis.order import local_over_global
from afterglow.cache import atomic_path
from afterglow.kinds import CONTROL_FAMILY, COPYABLE, KINDS, PLANTED
from afterglow.reports import charts, run_tables, token_groups
from afterglow.reports.audit_gallery import run_gallery
from afterglow.reports.grids import sample_grid
from afterglow.reports.run import Run, read_run
from afterglow.reports.tables import count_text, step_text
from afterglow.reports.timeline import shown_steps, spread_steps, timeline

OPTIMISTIC = "It was chosen on the same data, which is optimistic."
OPEN_KINDS = ("global", "local", "natural", "unprompted")  # kinds that the slider shows first


def write_report(folder: Path, rows: pd.DataFrame | None = None, summaries: dict[int, dict[str, float]] | None = None) -> Path:
    """Write report.html into the folder of a run, finished or not. Readers see the old page or the new one, never a part.

    Args:
        folder: run folder.
        rows: see read_run; a training keeps them, and summaries, between its evaluations.
        summaries: see read_run.

    Returns:
        The path of the page.

    Raises:
        AfterglowError: the folder holds no measurements.
    """
    run = read_run(Path(folder), rows, summaries)
    page = run.folder / "report.html"
    with atomic_path(page) as file:
        file.write_text(_render(run), encoding="utf-8")
    return page


def render(template: str, contents: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """A page as HTML; all text is escaped.

    Args:
        template: file of this folder that extends layout.html.jinja.
        contents: names of the template.
        data: {id: JSON that the page embeds}; `charts` holds Vega-Lite specifications.
    """
    scripts = {"vega": Markup(charts.vega_script()), "script": Markup((Path(__file__).parent / "page.js").read_text(encoding="utf-8"))}
    embedded = {name: _embedded(value) for name, value in data.items()}
    return (
        _environment()
        .get_template(template)
        .render({"kinds": KINDS, **contents, **(scripts if "charts" in data else {}), "data": embedded})
        .lstrip()
    )


@cache  # it keeps the compiled templates
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("afterglow.reports", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _render(run: Run) -> str:
    line = timeline(run)
    specs = {
        "memorized": charts.memorized_chart(run),
        "loss": charts.loss_chart(run),
        "emergence": charts.emergence_chart(run),
        "end_token": charts.end_token_chart(run, shown_steps(run)),
    }
    specs = {name: spec for name, spec in specs.items() if spec}
    colors = {name: kind.color for name, kind in KINDS.items()}
    shown = [run.numbers[step] for step in spread_steps(run.steps)]
    numbers = {key: [values.get(key) for values in shown] for key in dict.fromkeys(key for values in shown for key in values)}
    data = {
        "numbers": {"step": spread_steps(run.steps), **numbers},
        "emergence": run.emergence,
        "charts": specs,
        "timeline": line,
        "colors": colors,
    }
    return render("page.html.jinja", _contents(run, line) | {"charts": specs}, data)


def _contents(run: Run, line: dict[str, Any] | None) -> dict[str, Any]:
    kinds = list(dict.fromkeys(plant["kind"] for plant in line["plants"])) if line else []
    gallery = run_gallery(run.folder)
    return {
        "answer": answer(run) or (gallery["answer"] if gallery else ""),
        "gallery": gallery,
        "notices": [text for text in (_no_captions(run), _left_out(run), _one_count_of_controls(run)) if text],
        "unpaired": {"global", "local"} <= set(run.kinds),
        "timeline": line,
        "timeline_kinds": kinds,
        "open_kinds": [kind for kind in kinds if kind in OPEN_KINDS] or kinds,
        "command": f"afterglow train --config {run.folder}/config.yaml --name {run.folder.resolve().name}-again",
        "configuration": _configuration(run),
        "run": run,
        "title": run.setting("name") or run.folder.resolve().name,
        "summary": summary(run),
        "facts": _facts(run),
        "fractions": {kind: fractions[-1] for kind, fractions in run.memorized.items()},
        "count_text": count_text,
        "phantoms": run_tables.phantom_text(run),
        "evaluations": run_tables.evaluations_text(run.emergence),
        "tables": run_tables,
        "samples": sample_grid(run),
        "token_groups": token_groups.token_group_table(run),
        "localization": run_tables.localization_tables(run),
        "detection": run_tables.detection_tables(run),
    }


def answer(run: Run) -> str:
    """One sentence: local plants were memorized later or earlier than global ones, by which factor, or it cannot be told."""
    factor = local_over_global(run.emergence)
    if factor is not None:
        text = f"by a factor of {factor.value:.2f} in training steps (95 % interval {factor.low:.2f} to {factor.high:.2f})"
        if factor.low > 1:
            return f"Local plants were memorized later than global plants, {text}."
        if factor.high < 1:
            return f"Local plants were memorized earlier than global plants, {text}."
        return f"This run does not show whether local plants are memorized earlier or later than global plants: {text[3:]}."
    last = {kind: run.memorized[kind][-1] for kind in ("global", "local") if kind in run.memorized}
    if not last:
        return ""
    if not any(fraction.memorized for fraction in last.values()):
        return f"No plant is memorized at step {run.last} ({join([f'{fraction.count} {kind}' for kind, fraction in last.items()])} plants)."
    counts = [f"{fraction.memorized} of {fraction.count} {kind} plants" for kind, fraction in last.items()]
    return f"At step {run.last}, {join(counts)} are memorized; which kind was first is not confirmed yet by the next two evaluations."


def _no_captions(run: Run) -> str:
    """What the report says if images that were planted had no caption, as the terminal does before the training."""
    plants = [plant for plant in run.plants.values() if plant["kind"] in COPYABLE]
    names = [plant["text"] for plant in plants if plant.get("image_caption") == ""]
    if not names:
        return ""
    return (
        f"The images have no captions ({len(names)} of {len(plants)} that were taken for plants and phantoms). They were trained with an "
        f"empty caption. To the caption of each plant, phantom, decoy and tint, a name from a word list was added, such as '{names[0]}'."
    )


def _left_out(run: Run) -> str:
    """What the evaluations have less than the configuration names, because of monitor.budget."""
    rows, size = run.rows[run.rows["seed"] >= 0], run.setting("data.init_args.set_size")

    def missing(step: int, column: str, kinds: Collection[str], option: str, noun: str) -> str:
        """Empty if nothing is missing, or the evaluation has no such rows."""
        found = rows[(rows["step"] == step) & rows["kind"].isin(kinds)][column].nunique()
        wanted = run.setting(f"monitor.{option}") or 0
        few = 0 < found < (min(wanted, size or wanted) if option == "num_controls" else wanted)
        return f"{found} of {wanted} {noun}" if few else ""

    parts = [missing(run.steps[0], "plant_id", ("unprompted",), "num_unprompted", "generations without a caption")]
    if "unprompted" not in run.kinds:  # whose generations have seeds of their own
        parts.append(missing(run.steps[0], "seed", COPYABLE, "seeds", "generations per caption"))
        last = missing(run.last, "seed", COPYABLE, "final_seeds", "generations per caption at the last evaluation")
        parts.append(last if run.finished else "")
    if run.finished:
        parts.append(missing(run.last, "plant_id", ("control", CONTROL_FAMILY), "num_controls", "controls"))
    found = [part for part in parts if part]
    budget = run.setting("monitor.budget")
    return f"To keep the evaluations within monitor.budget {budget:g} they had {join(found)}." if found and budget else ""


def _one_count_of_controls(run: Run) -> str:
    """What the report says if the run does not tell controls with near-duplicates from the others."""
    if "control" not in run.kinds or run.has_cluster_sizes:
        return ""
    return (
        "The measurements of this run have no cluster_size. Controls with near-duplicates in the training set are counted with the "
        "others, so that the fraction of memorized controls is not a false-positive rate."
    )


def _configuration(run: Run) -> str:
    file = run.folder / "config.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def summary(run: Run) -> dict[str, str]:
    """{question: answer in one sentence}; a question without data is absent."""
    answers = {
        "What was memorized?": _what(run),
        "When?": _when(run),
        "Which map locates it?": _which_map(run),
        "Is that map high without a copy?": _without_copy(run),
        "Does the ending brighten?": token_groups.ending_sentence(run),
        "Which score detects it?": _which_score(run),
    }
    return {question: answer for question, answer in answers.items() if answer}


def _what(run: Run) -> str:
    counted = {
        "control": "controls that are alone in their cluster" if run.has_cluster_sizes else "controls (ordinary training images)",
        CONTROL_FAMILY: "controls of natural families",
        "phantom": "phantoms (false positives)",
        "unprompted": "generations without a caption",
    }
    nouns = {kind: f"{kind} plants" for kind in PLANTED} | counted
    fractions = {kind: run.memorized[kind][-1] for kind in nouns if kind in run.memorized}
    counts = [f"{fraction.memorized} of {fraction.count} {nouns[kind]}" for kind, fraction in fractions.items()]
    return f"At step {run.last} the model memorized {join(counts)}." if counts else ""


def _when(run: Run) -> str:
    kinds = run.emergence["kinds"]
    medians = {kind: kinds[kind]["median"] for kind in PLANTED if "median" in kinds.get(kind, {})}
    if not medians:
        return ""
    reached = {kind: step_text(median, run.last) for kind, median in medians.items() if median["step"] is not None}
    steps = [f"half of the {kind} plants had emerged by step {step}" for kind, step in reached.items()]
    never = [kind for kind, median in medians.items() if median["step"] is None]
    parts = [join(steps)] if steps else []
    parts += [f"fewer than half of the {join(never)} plants had emerged by step {run.last}"] if never else []
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}{' (95 % intervals in brackets)' if steps else ''}."


def _best_map(run: Run) -> str | None:
    """The map with the highest mean AUC on local plants, if any of them is memorized."""
    maps = [name for name in run.map_names if name not in run_tables.TRIVIAL]
    return maps[0] if maps and run.memorized["local"][-1].memorized else None


def _which_map(run: Run) -> str:
    name = _best_map(run)
    if name is None:
        return ""
    trivial = [other for other in run.map_names if other in run_tables.TRIVIAL]
    auc = {other: run.last_values["local", f"auc.{other}"].mean() for other in (name, *trivial[:1])}
    rival = f"; the best trivial map ({trivial[0]}) has {auc[trivial[0]]:.2f}" if trivial else ""
    count = len(run.map_names) - len(trivial)
    return f"Of {count} maps, {name} has the highest AUC on memorized local plants, {auc[name]:.2f}{rival}. {OPTIMISTIC}"


def _without_copy(run: Run) -> str:
    """Whether the best map is high on tints and phantoms too."""
    name, verbs = _best_map(run), ("is high", "is not high")
    classes = token_groups.values_by_class(run, name) if name else {}
    found = {label: classes[label].to_numpy() for label in (token_groups.TINTS, token_groups.PHANTOMS) if len(classes.get(label, ()))}
    verdicts = [token_groups.verdict(label, values, token_groups.best_trivial(run), verbs) for label, values in found.items()]
    predicts = token_groups.TINTS in found and verdicts[0].startswith(verbs[0])
    end = " A map that is high on tints shows what the caption predicts, which is not evidence of copying." if predicts else ""
    return f"It {'; it '.join(verdicts)}.{end}" if verdicts else ""


def _which_score(run: Run) -> str:
    suffix, numbers = "/memorized_vs_rest/auc", run.numbers[run.last]
    detectors = {key.removeprefix("detection/").removesuffix(suffix): auc for key, auc in numbers.items() if key.endswith(suffix)}
    if not detectors:
        return ""
    best = max(detectors, key=lambda name: detectors[name])
    auc = f"{detectors[best]:.2f}. {OPTIMISTIC}"
    return f"Of {len(detectors)} scores, {best} has the highest AUC for memorized generations against all others, {auc}"


def join(parts: Sequence[str]) -> str:
    """'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _facts(run: Run) -> list[tuple[str, str]]:
    """Settings of the run, as far as config.yaml has them."""

    def text(template: str, path: str) -> str:
        value = run.setting(path)
        return "" if value is None else template.format(value)

    data, sampler = "data.init_args", "monitor.sampler"
    time = f"epoch {run.last_rows['epoch'].max():.1f}, after {run.last_rows['seconds'].max() / 60:.1f} minutes"
    facts = [
        ("Model", str(run.setting("model.class_path") or "").rpartition(".")[2]),
        ("Training", text("{} steps", "trainer.max_steps")),
        ("Batch", text("{} images", f"{data}.batch_size")),
        ("Images", text("{}", f"{data}.dataset") + text(", {0} x {0} pixels", f"{data}.resolution")),
        ("Training images beside the plants", text("{}", f"{data}.set_size")),
        ("Sampler", text("{}", f"{sampler}.scheduler") + text(", {} steps", f"{sampler}.steps")),
        ("Guidance scale", text("{}", f"{sampler}.guidance_scale")),
        ("Last evaluation", f"step {run.last}, {time}"),
    ]
    return [(label, value) for label, value in facts if value]


def _embedded(value: Any) -> Markup:
    """JSON with every digit, safe inside a script element."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))
