import numpy as np
import pytest
from PIL import Image

from afterglow.reports.contact_sheet import write_contact_sheet


def test_a_image_with_a_row_for_every_local_plant(run_folder, tmp_path):
    path = write_contact_sheet(run_folder, tmp_path / "plate.png")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 100 and pixels.std() > 10
    assert len(list((run_folder / "plants").glob("*_local_0.png"))) >= 1


def test_a_run_without_local_plants_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing to show"):
        write_contact_sheet(tmp_path, tmp_path / "plate.png")
