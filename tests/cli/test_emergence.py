from pathlib import Path


def test_emergence_writes_page_figures_and_tables(inside, command, capsys):
    assert command("emergence", "runs/x", "--out", "emerged") == 0
    assert "emergence.html" in capsys.readouterr().out and Path("emerged/emergence.html").stat().st_size > 1000


def test_emergence_of_no_run_is_refused_in_one_sentence(tmp_path, command, capsys):
    assert command("emergence", tmp_path / "none", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "none" in printed and "Traceback" not in printed
