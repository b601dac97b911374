import json

import pytest

from afterglow.cli import main


def test_dashboard_prints_its_specification_without_a_network(capsys):
    main(["dashboard", "--entity", "team", "--project", "mine", "--print", "--run", "demo"])
    text = json.dumps(json.loads(capsys.readouterr().out))
    assert "memorized/local" in text and '"name": "displayName"}, "op": "=", "value": "demo"' in text


def test_dashboard_of_a_sweep_shows_emergence_against_its_settings(capsys):
    main(["dashboard", "--entity", "team", "--view", "sweep", "--print"])
    text = capsys.readouterr().out
    assert all(name in text for name in ("emergence/local_step", "copies", "width", "shapes"))


def test_dashboard_refuses_an_invalid_project(capsys):
    with pytest.raises(SystemExit) as left:
        main(["dashboard", "--entity", "team", "--project", "a/b", "--print"])
    assert left.value.code == 2 and "--wandb.project" in capsys.readouterr().err
