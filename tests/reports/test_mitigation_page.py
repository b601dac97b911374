"""The committed page comes out of the committed rows."""

from pathlib import Path

import pandas as pd
import pytest

from afterglow.reports.mitigation_page import keep_mitigation, mitigation_page

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


def test_the_committed_page_comes_out_of_the_committed_rows() -> None:
    text, figures = mitigation_page(FINDINGS / "mitigation")
    assert text == (FINDINGS / "mitigation.md").read_text(encoding="utf-8")
    assert all((FINDINGS / "mitigation" / f"{name}.png").is_file() for name in figures)


def test_comparisons_and_runs_are_kept(tmp_path: Path, write_run) -> None:
    (tmp_path / "mitigation-a").mkdir()
    with pytest.raises(ValueError, match="holds neither a comparison"):
        keep_mitigation(tmp_path / "mitigation-a", tmp_path / "kept")
    with pytest.raises(ValueError, match="No comparisons were kept"):
        mitigation_page(tmp_path / "kept")
    pd.DataFrame({"value": [1.0]}).to_parquet(tmp_path / "mitigation-a" / "plants.parquet")
    assert keep_mitigation(tmp_path / "mitigation-a", tmp_path / "kept") < 60_000
    run = write_run(tmp_path / "mitigations-none-0")
    (run / "emergence.json").write_text("{}")
    keep_mitigation(run, tmp_path / "kept")
    assert {path.parent.name for path in (tmp_path / "kept").glob("*/*.parquet")} == {"mitigation-a", "mitigations-none-0"}
