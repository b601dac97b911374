import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from afterglow.analysis.localization import CollectedMaps, map_rows
from afterglow.reports.bench import detection_text, gallery_figure, interval_figure, localization_text, text_table


def test_a_text_table_is_markdown_with_aligned_columns():
    assert text_table(["a", "long"], [["1", "2"], ["three", "4"]]).splitlines() == [
        "| a     | long |",
        "| ----- | ---- |",
        "| 1     | 2    |",
        "| three | 4    |",
    ]


@pytest.fixture
def detection():
    rows = []
    for detector, value in (("worse", 0.6), ("better", 0.9)):
        for metric in ("auc", "f1"):
            about = {"detector": detector, "positive": "local", "negative": "phantom", "images": 4, "metric": metric}
            rows.append(about | {"value": value, "low": value - 0.1, "high": value + 0.05, "positives": 8, "negatives": 16, "runs": 2})
    return pd.DataFrame(rows)


def test_detectors_stand_in_the_order_of_their_auc_with_intervals(detection):
    text = detection_text(detection, ("auc", "f1", "tpr_at_1fpr_under"))
    assert text.startswith("local (8) against phantom (16), n = 4 images, 2 run(s)")
    lines = [line for line in text.splitlines() if line.startswith("| better") or line.startswith("| worse")]
    assert lines == ["| better   | 0.90 [0.80, 0.95] | 0.90 [0.80, 0.95] |", "| worse    | 0.60 [0.50, 0.65] | 0.60 [0.50, 0.65] |"]


def test_maps_stand_in_the_order_of_their_auc_on_local_plants():
    rows = []
    for name, local, phantom in (("a", 0.6, 0.5), ("b", 0.8, 0.4)):
        for kind, metric, value in (("phantom", "auc", phantom), ("local", "auc", local), ("local", "iou", local / 2)):
            rows.append({"map": name, "kind": kind, "metric": metric, "value": value, "low": value, "high": value, "plants": 8, "runs": 1})
    head, _, *lines = localization_text(pd.DataFrame(rows), ["kind"]).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["map", "AUC local (8)", "AUC phantom (8)", "IoU local"]
    assert [line.split("|")[1].strip() for line in lines] == ["b", "a"]
    assert "0.80 [0.80, 0.80]" in lines[0] and "0.40 [0.40, 0.40]" in lines[0]


def test_figures_are_written_in_both_formats_and_are_the_same_again(tmp_path, detection):
    for turn in ("one", "two"):
        paths = [tmp_path / f"{turn}.{ending}" for ending in ("png", "svg")]
        interval_figure(detection[detection["metric"] == "auc"], "detector", "negative", "AUC", paths, panel="positive")
        assert np.asarray(Image.open(paths[0])).std() > 1 and b"better" in paths[1].read_bytes()
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_gallery_shows_best_middle_and_worst(tmp_path):
    region = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    region[:, :, :4] = True
    soft = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    soft[1] = region[1, 0].float()
    about = [{"run": "r", "plant_id": n, "kind": "local", "shape": "half", "seed": 0, "caption": ""} for n in range(3)]
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    located = CollectedMaps(about, [images], [region], {"m": [soft]})
    gallery_figure(located, map_rows(located), ["m"], [tmp_path / "g.svg"])
    assert "best: AUC 1.00" in (tmp_path / "g.svg").read_text() and "worst" in (tmp_path / "g.svg").read_text()
