from audit_results import made

from afterglow.analysis.audit import NO_COPY, PART_COPY, WHOLE_COPY
from afterglow.reports.audit_gallery import contents, run_gallery, where_text


def test_copies_come_first_with_their_outline(tmp_path):
    result = made([NO_COPY, PART_COPY, WHOLE_COPY], passed=1)
    found = contents(result)
    assert [card["row"].file_name for card in found["cards"]] == ["2.png", "1.png", "0.png"]
    assert [bool(card["pair"][0].outline) for card in found["cards"]] == [False, True, False]
    assert found["cards"][1]["where"] == where_text(result.rows.loc[1]) == "x 50 to 100 %, y 0 to 100 %"
    assert found["counts"][0] == ["copied whole", "1 of 3", "1.00", "1 of 20 (0.1% to 24.9%)"] and found["timeline"] == []
    without = contents(made([NO_COPY], passed=1, held_out=False))
    assert without["counts"][0][-1] == "1 of 20" and "no interval" in without["count_notes"][-1] and len(found["count_notes"]) == 1
    assert run_gallery(tmp_path) is None
    result.save(tmp_path / "audit")
    assert run_gallery(tmp_path)["answer"] == found["answer"]
