from pathlib import Path


def test_localize_writes_tables_and_figures_by_kind_and_shape(inside, command, capsys):
    assert command("localize", "generations", "--group-by", "kind", "shape", "--maps", "luminance", "score_difference.*") == 0
    printed = capsys.readouterr().out
    assert "AUC local" in printed and "IoU local" in printed and "luminance.inverted" in printed and "mask_prior" in printed
    assert max(map(len, printed.splitlines())) <= 100
    for name in ("localization.parquet", "generations.parquet", "localization.png", "localization.svg", "gallery.png", "gallery.svg"):
        assert (Path("localization") / name).stat().st_size > 500


def test_localize_bad_input_is_refused_in_one_sentence(inside, command, capsys):
    assert command("localize", "a", "b", "--seeds", "0") == 2 and "1 training seeds for 2 runs" in capsys.readouterr().err
    assert command("localize", "nowhere") == 2 and "nowhere" in capsys.readouterr().err
    assert command("localize", "generations", "--group-by", "kinds") == 2 and "did you mean kind?" in capsys.readouterr().err
