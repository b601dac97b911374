import json

import pytest

from afterglow.errors import AfterglowError
from afterglow.loggers import workspace


@pytest.mark.parametrize("view", workspace.VIEWS)
def test_specification_of_a_workspace_has_the_sections_in_order_and_no_smoothing(view):
    text = workspace.specification(workspace.workspace("team", "project", view))
    spec = json.loads(text)
    names = [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]
    assert names[: len(workspace.sections(view))] == list(workspace.sections(view))
    assert '"xLogScale": true' in text and '"smoothingType": "none"' in text


@pytest.mark.parametrize(("view", "run"), [("runs", "demo"), ("sweep", None)])
def test_report_arrives_with_the_sections_of_its_view_and_the_filter_for_one_run(view, run, monkeypatch, wandb_server):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        assert workspace.save(workspace.report("team", "afterglow", view, run)).startswith(f"{server.url}/team/afterglow/reports/")
        (saved,) = server.views
    assert saved["displayName"] == f"Afterglow: memorization, {run or view}" and saved["type"] == "runs"
    blocks = json.loads(saved["spec"])["blocks"]
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    panels = [block for block in blocks if block["type"] == "panel-grid"]
    assert headings == list(workspace.sections(view)) and len(panels) == len(headings)
    assert all(
        ("displayName" in json.dumps(panel["metadata"]["runSets"]) and '"demo"' in json.dumps(panel)) == bool(run) for panel in panels
    )


def test_save_without_a_server_is_refused_in_one_sentence(monkeypatch):
    class Refused:
        def save(self):
            raise RuntimeError("permission\ndenied")

    with pytest.raises(AfterglowError, match="W&B did not save the dashboard: permission denied"):
        workspace.save(Refused())
