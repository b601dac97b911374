import pytest

from afterglow.errors import AfterglowError
from afterglow.loggers.finished import log_analysis, log_figures


def test_numbers_of_a_command_reach_the_run_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "config.yaml").write_text("name: x")
    first, again = log_analysis(tmp_path, {"audit/copied": 0.5}, {}), log_figures(tmp_path, {"audit/copied": 0.25}, {})
    assert "wandb sync" in first and "wandb sync" in again
    (number,) = (tmp_path / "wandb" / "run_id").read_text().split()
    assert all(number in path.name for path in (tmp_path / "wandb").glob("offline-run-*"))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(AfterglowError, match="There is no run in .*: config.yaml is missing"):
        log_analysis(tmp_path, {}, {})
