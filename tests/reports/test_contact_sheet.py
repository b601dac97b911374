import numpy as np
import pytest
from PIL import Image

from afterglow.reports.contact_sheet import write_contact_sheet


def test_contact_sheet_has_a_row_per_plant(run_folder, tmp_path):
    heights = []
    for kind in ("global", "local", "local"):
        heights.append(np.asarray(Image.open(write_contact_sheet(run_folder, tmp_path / "sheet.png"))).shape[0])
        next((run_folder / "plants").glob(f"*_{kind}_0.png")).unlink()
    assert np.diff(heights) == pytest.approx([-1.05 * 110] * 2, abs=1)


def test_contact_sheet_without_plants_raises(tmp_path):
    with pytest.raises(ValueError, match="nothing to show"):
        write_contact_sheet(tmp_path, tmp_path / "sheet.png")
