from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from afterglow.analysis.emergence_table import emergence_of
from afterglow.evaluation.false_positives import false_positive_rows
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig


@pytest.fixture(scope="module")
def planted():
    planting = PlantingConfig(num_global=2, num_local=2, num_decoys=0, num_tints=0, num_decoy_images=0, copies=(40,), num_backgrounds=20)
    module = PlantedDataModule(set_size=30, planting=planting)
    module.setup()
    return module.planted


def test_false_positives_equal_a_loop_over_the_training_images(planted):
    """Each held-out image, its nearest training image, and half the mean distance to the 50 next clusters."""
    rows, gallery = false_positive_rows(planted, planted.gallery()), planted.gallery()
    found = rows[rows["measure"] == "unseen.calibrated_l2"].set_index("plant_id")["value"]
    assert set(found.index) <= {len(planted.plants) + int(row) for row in planted.heldout} and len(found) > 5
    images, clusters = np.asarray(gallery.pixels, dtype=np.float64) / 255, np.asarray(gallery.clusters)
    halves = [template for template in gallery.templates if template.mask.mean() >= 0.5]  # smaller regions are no neighbors of an image
    for number, value in list(found.items())[:5]:
        image = planted.pixels[number - len(planted.plants)].astype(np.float64) / 255
        distances = pd.Series(np.sqrt(((images - image) ** 2).mean((1, 2, 3)))).groupby(clusters).min().tolist()
        distances += [np.sqrt((((half.pixels / 255 - image) ** 2)[:, half.mask[0]]).mean()) for half in halves]
        nearest = sorted(distances)
        assert value == pytest.approx(nearest[0] / (0.5 * np.mean(nearest[1:51])), rel=1e-4)
    copies = int(rows[rows["measure"] == "unseen.memorized"]["value"].sum())
    assert copies == (found < 1).sum()
    assert emergence_of(rows.assign(step=6))["unseen"] == {"images": len(found), "memorized": copies}


def test_false_positives_leave_out_near_duplicates_of_training_images(planted):
    pixels = planted.pixels.copy()
    pixels[planted.heldout[0]] = pixels[planted.controls[0]]
    with_duplicate = replace(planted, pixels=pixels)
    numbers = set(false_positive_rows(with_duplicate, with_duplicate.gallery())["plant_id"])
    assert len(planted.plants) + int(planted.heldout[0]) not in numbers and numbers
    assert false_positive_rows(replace(planted, heldout=planted.heldout[:0]), planted.gallery()).empty
