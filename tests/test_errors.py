import logging

import pytest

from afterglow.errors import configure_logging, exit_on_user_error
from afterglow.planting.regions import region


def test_a_value_error_of_ours_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as left, exit_on_user_error():
        region("star", 8, 0, None)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_value_error_of_others_keeps_its_traceback():
    with pytest.raises(ValueError, match="invalid literal"), exit_on_user_error():
        int("x")


def test_what_the_system_refuses_names_the_file(capsys, tmp_path):
    with pytest.raises(SystemExit), exit_on_user_error():
        (tmp_path / "gone").read_text()
    assert str(tmp_path / "gone") in capsys.readouterr().err


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("AFTERGLOW_TRACEBACK", "1")
    with pytest.raises(ValueError, match="star"), exit_on_user_error():
        region("star", 8, 0, None)


def test_our_own_messages_stay():
    configure_logging()
    assert logging.getLogger("afterglow").isEnabledFor(logging.INFO) and not logging.getLogger("datasets").isEnabledFor(logging.WARNING)
