import json
import logging

import pytest

from afterglow.errors import (
    AfterglowError,
    configure_logging,
    did_you_mean,
    exit_on_user_error,
    exit_with,
    import_optional,
    one_line,
    reading,
    require,
    require_fraction,
    require_positive,
    user_error,
)
from afterglow.planting.regions import region


def test_exit_on_user_error_prints_one_sentence(capsys):
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        region("star", 8, 0, None)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_exit_on_user_error_keeps_the_traceback_of_a_bug():
    with pytest.raises(ValueError, match="invalid literal"), exit_on_user_error():
        int("x")


def test_exit_on_user_error_names_the_file_of_an_os_error(capsys, tmp_path):
    with pytest.raises(SystemExit), exit_on_user_error():
        (tmp_path / "gone").read_text()
    assert str(tmp_path / "gone") in capsys.readouterr().err


def test_exit_on_user_error_shows_the_traceback_on_request(monkeypatch):
    monkeypatch.setenv("AFTERGLOW_TRACEBACK", "1")
    with pytest.raises(ValueError, match="star"), exit_on_user_error():
        region("star", 8, 0, None)


def test_user_error_is_found_behind_errors_of_libraries():
    try:
        try:
            raise AfterglowError("the culprit")
        except AfterglowError as error:
            raise TypeError("wrapped") from error
    except TypeError as error:
        assert str(user_error(error)) == "the culprit"
    assert user_error(TypeError("a bug")) is None


def test_reading_names_a_broken_file_and_passes_a_missing_one(tmp_path):
    (tmp_path / "rows.json").write_text("{")
    with pytest.raises(AfterglowError, match=r"rows.json' cannot be read"), reading(tmp_path / "rows.json"):
        json.loads((tmp_path / "rows.json").read_text())
    with pytest.raises(FileNotFoundError), reading(tmp_path / "gone"):
        (tmp_path / "gone").read_text()


def test_did_you_mean_names_the_nearest_or_nothing():
    assert did_you_mean("lerning_rate", ["learning_rate", "seed"]) == ": did you mean learning_rate?"
    assert did_you_mean("quux", ["learning_rate", "seed"]) == ""


def test_import_optional_names_the_extra_of_a_missing_package():
    assert import_optional("json", "none") is __import__("json")
    with pytest.raises(AfterglowError, match=r"no_such_package is not installed: run `pip install -e '\.\[vit\]'`"):
        import_optional("no_such_package", "vit")


def test_configure_logging_keeps_our_messages():
    configure_logging()
    assert logging.getLogger("afterglow").isEnabledFor(logging.INFO) and not logging.getLogger("datasets").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_require_names_option_and_value(value):
    with pytest.raises(AfterglowError, match=rf"^rate must be a number from 0 to 1, not {value}\.$"):
        require_fraction(rate=value)
    require_fraction(rate=0.5)


def test_require_positive_names_the_first_option_below_one():
    with pytest.raises(AfterglowError, match=r"^seeds must be at least 1, not 0\.$"):
        require_positive(steps=1, seeds=0)
    with pytest.raises(AfterglowError, match=r"^name must be short, not x+ \.\.\. x+\.$"):
        require("name", "x" * 1000, False, "short")


def test_one_line_and_exit_with_keep_300_characters(capsys):
    assert one_line("a\n b") == "a b" and len(one_line("x" * 400)) <= 300 and one_line("a" + "x" * 400 + "b", 50).endswith("b")
    assert exit_with("y" * 400).code == 2
    assert len(capsys.readouterr().err) <= 301
