def test_compare_prints_tables_of_a_run(inside, command, capsys):
    assert command("compare", "runs/x") == 0
    printed = capsys.readouterr().out
    assert "global" in printed and "phantom" in printed and printed.strip().endswith("comparison.html")
    assert (inside / "comparison.html").stat().st_size < 15e6
    assert command("compare", "runs/x", "--every-map") == 0 and len(capsys.readouterr().out) > len(printed)


def test_compare_of_no_run_is_refused_in_one_sentence(tmp_path, command, capsys):
    assert command("compare", tmp_path / "none") == 2 and "none" in capsys.readouterr().err
