import pandas as pd


def test_measure_writes_one_row_for_each_number(inside, command, capsys):
    assert command("measure", "generations", "--out", "m.parquet") == 0
    rows = pd.read_parquet("m.parquet")
    assert f"{len(rows)} numbers" in capsys.readouterr().out
    expected = {"guidance_norm.all", "ld.be.all", "sharpness", "memorized", "auc.curvature_difference"}
    assert expected <= set(rows["measure"])


def test_measure_list_names_every_measure_with_inputs_unit_and_source(command, capsys):
    assert command("measure", "--list") == 0
    printed = capsys.readouterr().out
    for word in ("guidance_norm.all", "end_attention.last", "Jeon et al. 2025", "sharpness", "split_product.cross"):
        assert word in printed


def test_measure_bad_input_is_refused_in_one_sentence(inside, command, capsys):
    for words, sentence in (
        (("nowhere",), "nowhere"),
        ((), "Name at least one folder"),
        (("generations", "--measures", "ld.bee"), "ld.bee"),
    ):
        assert command("measure", *words) == 2
        printed = capsys.readouterr().err
        assert sentence in printed and "Traceback" not in printed
