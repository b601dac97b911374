"""The images of an audit; tests/cli/test_audit.py reads folders and runs."""

from dataclasses import replace

import numpy as np
import pytest

from afterglow.errors import AfterglowError
from afterglow.evaluation.audited_set import trained_images


def test_a_training_is_audited_with_one_epoch_and_its_held_out_images(planted):
    images = trained_images(planted)
    assert images.count == len(planted.appearances) and not set(images.clusters[: images.count]) & set(images.clusters[images.count :])
    assert images.names[images.count :] == tuple(planted.names[row] for row in planted.heldout.tolist())
    row = next(row for row, name in enumerate(images.names) if name == planted.names[planted.controls[0]])
    assert np.array_equal(images.pixels[row], planted.pixels[planted.controls[0]])
    plant = planted.of_kind("global")[0]
    assert sum(name.startswith(f"global plant {plant.plant_id}, sample") for name in images.names) == plant.copies


def test_held_out_images_are_needed(planted):
    with pytest.raises(AfterglowError, match="num_heldout must be at least 2"):
        trained_images(replace(planted, heldout=planted.heldout[:1]))
