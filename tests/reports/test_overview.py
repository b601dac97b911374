from collections.abc import Callable
from pathlib import Path

from afterglow.reports.overview import run_states

MakeRun = Callable[..., Path]


def test_state_of_a_finished_run(make_run: MakeRun) -> None:
    folder = make_run()
    (state,) = run_states(folder.parent)
    assert (state.name, state.step, state.finished) == ("run", 40, True)
    assert state.memorized["global"] == (2, 2) and state.fraction_text("phantom") == "0 of 4" and state.fraction_text("natural") == "-"
    assert state.number("local") == 1 and state.number("natural") == -1 and state.number("step") == 40


def test_state_of_a_run_that_has_not_ended(make_run: MakeRun) -> None:
    (state,) = run_states(make_run(finished=False).parent)
    assert (state.step, state.finished, state.memorized["local"]) == (20, False, (0, 2))


def test_damaged_measurements_count_as_no_evaluation(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "measurements.parquet").write_bytes(b"torn")
    (state,) = run_states(folder.parent)
    assert state.step == 0 and state.memorized == {}


def test_other_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "no run").mkdir()
    assert run_states(tmp_path) == []
