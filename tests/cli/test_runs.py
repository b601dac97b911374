def test_runs_lists_state_step_and_fractions(inside, command, capsys):
    assert command("runs") == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    row = next(row for row in rows if row.startswith("| x "))
    assert all(name in head for name in ("run", "state", "global", "local", "phantom"))
    assert "finished" in row and len(row) <= 100


def test_runs_of_no_folder_is_refused_in_one_sentence(tmp_path, command, capsys):
    assert command("runs", tmp_path / "none") == 2 and "There is no folder" in capsys.readouterr().err
    assert command("runs", tmp_path) == 2 and "holds no run" in capsys.readouterr().err
