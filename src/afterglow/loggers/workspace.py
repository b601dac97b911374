"""Dashboards of W&B as code: a workspace for runs, one for sweeps, and a report with the panels of either."""

from typing import Any

from afterglow import keys
from afterglow.errors import AfterglowError, import_optional, one_line

PANEL_KINDS = ("global", "local", "phantom", "decoy", "control")
PANEL_MAPS = ("score_difference.summed", "end_token.last.first_eos.be", "end_token.last.first_eos.all")
PANEL_SCORES = ("guidance_norm.all", "ld.be.all", "end_token_mean.be")
GROUPED_BY = ("dataset", "n", "copies", "shapes", "width", "mitigation")  # a group differs in the seed: mean and standard error are shown
SWEPT = ("n", "copies", "shapes", "width")
VIEWS = ("runs", "sweep")
VIEWS_QUERY = """
query AllViews($entity: String, $project: String) {
  project(name: $project, entityName: $entity) { allViews(viewType: "project-view") { edges { node { displayName } } } }
}"""


def sections(view: str) -> dict[str, list[Any]]:
    """{name of a section: its panels} of the view of runs or of a sweep."""
    return _sweep_sections() if view == "sweep" else _run_sections()


def workspace(entity: str, project: str, view: str, run: str | None = None) -> Any:
    """A workspace of `wandb_workspaces` for all runs of a project, or for those of one name; nothing is sent before it is saved."""
    ws = import_optional("wandb_workspaces.workspaces", "dashboard")
    parts = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections(view).items()]
    for part in parts:
        part.panel_settings = ws.SectionPanelSettings(x_axis=keys.STEP, smoothing_type="none")
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Afterglow {run or view}",
        sections=parts,
        settings=ws.WorkspaceSettings(x_axis=keys.STEP, smoothing_type="none", max_runs=50),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(name) for name in (GROUPED_BY if view == "runs" else SWEPT)], filters=_named(run)
        ),
        auto_generate_panels=False,
    )


def report(entity: str, project: str, view: str, run: str | None = None) -> Any:
    """A W&B report with the panels of a view, one grid for each section, of all runs of a project or of those of one name."""
    wr = import_optional("wandb_workspaces.reports.v2", "dashboard")
    runs = wr.Runset(entity=entity, project=project, filters=_named(run))
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in sections(view).items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(entity=entity, project=project, title=f"Afterglow: memorization, {run or view}", blocks=blocks)


def _named(run: str | None) -> Any:
    """The filter for runs of one name; none without a name."""
    expr = import_optional("wandb_workspaces.expr", "dashboard")
    return expr.And(expr.Metric("displayName") == run) if run else ""


def specification(space: Any) -> str:
    """What a workspace sends to W&B, as JSON."""
    return str(space._to_model().spec.model_dump_json(by_alias=True, indent=1))  # W&B has no public way to see it without a server


def save(dashboard: Any) -> str:
    """Send a workspace or a report to W&B; return its address.

    Raises:
        AfterglowError: there is no API key, or W&B refuses.
    """
    try:
        dashboard.save()
    except Exception as error:  # of the client, of the server and of the network
        raise AfterglowError(f"W&B did not save the dashboard: {one_line(str(error), 200)}") from error
    return str(dashboard.url)


def save_first(entity: str, project: str) -> str | None:
    """Save the workspace for runs unless the project has a view of this name; return its address, or None.

    Raises:
        AfterglowError: see `save`; or the extra `dashboard` is not installed.
    """
    import wandb

    space = workspace(entity, project, "runs")
    internal = import_optional("wandb_workspaces.workspaces.internal", "dashboard")  # its public functions find views by address only
    try:
        found = internal.execute_graphql(wandb.Api(), VIEWS_QUERY, {"entity": entity, "project": project})
        views = [edge["node"]["displayName"] for edge in found["project"]["allViews"]["edges"]]
    except Exception as error:  # of the client, of the server and of the network
        raise AfterglowError(f"W&B did not list the workspaces: {one_line(str(error), 200)}") from error
    return None if space.name in views else save(space)


def _run_sections() -> dict[str, list[Any]]:
    wr = import_optional("wandb_workspaces.reports.v2", "dashboard")
    lines, media = _line_plot, wr.MediaBrowser
    return {
        "Overview": [
            lines("Memorized fraction", [keys.memorized_fraction(kind) for kind in PANEL_KINDS[:3]]),
            lines("Training loss", ["train/loss"]),
            *(wr.ScalarChart(title=f"Emergence: {kind} (median step)", metric=keys.emergence(kind, "step")) for kind in PANEL_KINDS[:2]),
        ],
        "Masks (planted blue, predicted orange)": [
            media(title=n, media_keys=[keys.masks(n)], mode="gallery", gallery_axis="step") for n in PANEL_MAPS
        ],
        "Samples": [media(title=kind, media_keys=[keys.samples(kind)], mode="gallery", gallery_axis="step") for kind in PANEL_KINDS[:4]],
        "Localization": [lines(metric.upper(), [keys.localization(name, metric) for name in PANEL_MAPS]) for metric in ("auc", "iou")],
        "Detection": [
            lines(f"AUC, {kind} against phantoms", [keys.detection(score, f"{kind}_vs_phantom", "auc") for score in PANEL_SCORES])
            for kind in PANEL_KINDS[:2]
        ],
        "End-token attention": [lines(group, [keys.end_token(group)]) for group in ("global", "local", "none")],
        "Mitigation": [
            wr.BarPlot(title=f"Memorized: {kind}", metrics=[keys.memorized_fraction(kind)], groupby=wr.Config("mitigation"))
            for kind in PANEL_KINDS[:2]
        ],
        "False positives": [lines("Memorized although never copied", [keys.memorized_fraction(kind) for kind in PANEL_KINDS[2:]])],
        "Training": [lines("Learning rate", [keys.LEARNING_RATE]), lines("Averaged steps", [keys.EMA_WINDOW])],
        "Cost": [lines("Images per second", [keys.SPEED])],
    }


def _sweep_sections() -> dict[str, list[Any]]:
    wr = import_optional("wandb_workspaces.reports.v2", "dashboard")
    emergence = {kind: keys.emergence(kind, "step") for kind in PANEL_KINDS[:2]}
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(metric=wr.Config(name)) for name in SWEPT] + [column(metric=wr.SummaryMetric(key)) for key in emergence.values()]
    return {
        f"Emergence: {kind}": [
            wr.ScatterPlot(title=f"{kind}, against {name}", x=wr.Config(name), y=wr.SummaryMetric(key), log_x=True, log_y=True)
            for name in SWEPT
        ]
        for kind, key in emergence.items()
    } | {
        "Memorized fraction": [_line_plot(kind, [keys.memorized_fraction(kind)]) for kind in PANEL_KINDS[:2]],
        "All settings": [wr.ParallelCoordinatesPlot(columns=columns), wr.RunComparer(diff_only="split")],
    }


def _line_plot(title: str, names: list[str]) -> Any:
    wr = import_optional("wandb_workspaces.reports.v2", "dashboard")
    return wr.LinePlot(
        title=title, x=keys.STEP, y=names, log_x=True, smoothing_type="none", groupby_aggfunc="mean", groupby_rangefunc="stderr"
    )
