import runpy
import sys

import pytest


def test_main_module_runs_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["afterglow", "--help"])
    runpy.run_module("afterglow", run_name="__main__")
    assert "commands:" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["afterglow", "nothing"])
    with pytest.raises(SystemExit):
        runpy.run_module("afterglow", run_name="__main__")
