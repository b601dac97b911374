import numpy as np
import pandas as pd
import pytest
from PIL import Image

from afterglow.analysis.extraction import fractions
from afterglow.reports.extraction import extraction_text, histograms_figure


def table(count=40):
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "generation": np.arange(count),
            "calibrated_l2": generator.uniform(0, 2, count),
            "cluster": generator.integers(0, 30, count),
            "row": generator.integers(0, 30, count),
            "tile": generator.integers(0, 4, count),
            "tile_calibrated_l2": generator.uniform(0, 2, count),
            "tile_cluster": generator.integers(0, 30, count),
            "tile_row": generator.integers(0, 30, count),
            "similarity": generator.uniform(0.5, 1, count),
            "nn_ratio": generator.uniform(0, 1, count),
            "neighbors": 15,
        }
    )


def test_extraction_text_has_each_fraction_with_its_interval():
    training = np.linspace(0.4, 0.9, 50)
    said = extraction_text(fractions(table(), training), table(), training, {"model": "runs/x", "grid": 2, "set size": None})
    assert "set size" not in said  # nobody chose one
    assert "model: runs/x" in said and "whole image, extracted: under 1" in said and "similarity over 0.875" in said
    assert "training to training" in said and len(said.splitlines()) < 28
    assert "calibrate a whole image: 15." in said and "[" not in said.replace("fraction [95 %]", "") and "--heldout" in said
    assert "best tile" not in said and "no verdict on tiles" in said
    unseen = table(200).assign(tile_calibrated_l2=np.linspace(0.4, 2, 200))
    said = extraction_text(fractions(table(), training, unseen=unseen), table().assign(neighbors=[15] * 39 + [50]), training, {})
    line = next(line for line in said.splitlines() if "best tile" in line)
    assert "under 0.4 " in line and "[" in line and "0 of 100 (0.0% to" in line  # the false positives, beside the interval
    assert "15 to 50" in said and "--heldout" not in said


def test_few_unseen_images_give_no_verdict_on_tiles():
    training = np.linspace(0.4, 0.9, 50)
    said = extraction_text(fractions(table(), training, unseen=table(64)), table(), training, {})
    assert "best tile" not in said and "with 32 of them the expected false-positive rate is 1/33 = 3.0%, above 1%" in said
    assert "197 unseen images are enough" in said


@pytest.mark.parametrize("limit", [None, 0.4])
def test_histograms_are_drawn(tmp_path, limit):
    histograms_figure(table(), np.linspace(0.4, 0.9, 50), "pixels", tmp_path / "histograms.png", limit)
    assert min(Image.open(tmp_path / "histograms.png").size) > 50
