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


def test_save_without_a_server_is_one_sentence(monkeypatch):
    class Refused:
        def save(self):
            raise RuntimeError("permission\ndenied")

    with pytest.raises(AfterglowError, match="W&B did not save the dashboard: permission denied"):
        workspace.save(Refused())
