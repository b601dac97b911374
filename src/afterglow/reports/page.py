"""report.html: one page that needs no server, no network and no other file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from afterglow.reports import figures, findings, tables
from afterglow.reports.fractions import memorized_shares, phantoms_by_shape
from afterglow.reports.grids import map_grid, sample_grid
from afterglow.reports.kinds import KINDS
from afterglow.reports.run import Run, read_run
from afterglow.reports.text import spacing


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder, finished or not; raises ValueError where it holds no measurements.parquet."""
    run = read_run(Path(folder))
    page = run.folder / "report.html"
    page.write_text(render(run), encoding="utf-8")
    return page


def render(run: Run) -> str:
    """The page as HTML: everything that comes from the run is escaped."""
    environment = Environment(
        loader=PackageLoader("afterglow.reports", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja").render(contents(run)).lstrip()


def contents(run: Run) -> dict[str, Any]:
    """Everything the template shows."""
    shares = {kind: found[-1] for kind, found in memorized_shares(run).items()}
    return {
        "run": run,
        "title": run.setting("name") or run.folder.resolve().name,
        "facts": facts(run),
        "kinds": KINDS,
        "shares": shares,
        "phantoms": phantoms_by_shape(run),
        "spacing": spacing(run.emergence),
        "tables": tables,
        "memorized_curves": {title: Markup(svg) for title, svg in figures.memorized_curves(run).items()},
        "loss_curves": Markup(figures.loss_curves(run)),
        "samples": sample_grid(run),
        "maps": map_grid(run, findings.best_end_token_map(run)),
        "localization": findings.localization_tables(run),
        "detection": findings.detection_tables(run),
        "numbers": embedded(run.numbers),
        "emergence": embedded(run.emergence),
    }


def facts(run: Run) -> list[tuple[str, str]]:
    """What was trained on what, for as long as config.yaml tells."""
    name = str(run.setting("model.class_path") or "").rpartition(".")[2]
    data, sampler = "data.init_args", "monitor.sampler"
    side = run.setting(f"{data}.resolution")
    told = [
        ("Model", name),
        ("Training", _told("{} steps", run.setting("trainer.max_steps"))),
        ("Batch", _told("{} images", run.setting(f"{data}.batch_size"))),
        ("Images", _told("{}", run.setting(f"{data}.dataset")) + _told(", {0} x {0} pixels", side)),
        ("Trained on beside the plants", _told("{} images", run.setting(f"{data}.set_size"))),
        ("Sampler", _told("{}", run.setting(f"{sampler}.scheduler")) + _told(", {} steps", run.setting(f"{sampler}.steps"))),
        ("Guidance", _told("{}", run.setting(f"{sampler}.guidance_scale"))),
        (
            "Last probe",
            f"step {run.last}, epoch {run.last_rows['epoch'].max():.1f}, after {run.last_rows['seconds'].max() / 60:.1f} minutes",
        ),
    ]
    return [(label, text) for label, text in told if text]


def _told(form: str, value: Any) -> str:
    return "" if value is None else form.format(value)


def embedded(value: Mapping) -> Markup:
    """JSON with every digit, safe inside a script element."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))
