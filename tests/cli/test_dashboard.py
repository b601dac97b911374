import json

import pytest

from afterglow.cli import main


def test_dashboard_prints_its_specification_without_a_network(capsys):
    main(["dashboard", "--entity", "team", "--project", "mine", "--print"])
    assert "memorized/local" in json.dumps(json.loads(capsys.readouterr().out))


def test_dashboard_refuses_an_invalid_project(capsys):
    with pytest.raises(SystemExit) as left:
        main(["dashboard", "--entity", "team", "--project", "a/b", "--print"])
    assert left.value.code == 2 and "--wandb.project" in capsys.readouterr().err
