from pathlib import Path


def test_report_writes_the_page_and_the_contact_sheet(inside, command, capsys):
    Path("runs/x/report.html").unlink(missing_ok=True)
    assert command("report", "runs/x") == 0
    assert "report.html" in capsys.readouterr().out and Path("runs/x/report.html").stat().st_size > 10_000
    assert command("report", "runs/x", "--contact-sheet", "sheet.png") == 0 and Path("sheet.png").stat().st_size > 500


def test_report_of_no_run_is_refused_in_one_sentence(tmp_path, command, capsys):
    assert command("report", tmp_path / "none") == 2
    printed = capsys.readouterr().err
    assert "none" in printed and "Traceback" not in printed
