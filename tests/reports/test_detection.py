import numpy as np
import pandas as pd
import pytest
from PIL import Image

from afterglow.reports.detection import copies_detected_text, detection_text, interval_figure


@pytest.fixture
def detection() -> pd.DataFrame:
    rows = []
    for detector, value in (("worse", 0.6), ("better", 0.9)):
        for metric in ("auc", "f1"):
            row = {"detector": detector, "positive": "local", "negative": "phantom", "images": 4, "metric": metric}
            rows.append(row | {"value": value, "low": value - 0.1, "high": value + 0.05, "positives": 8, "negatives": 16, "runs": 2})
    return pd.DataFrame(rows)


def test_detection_text_sorts_detectors_by_auc(detection) -> None:
    text = detection_text(detection, ("auc", "f1", "tpr_at_1fpr_under"))
    assert text.startswith("local (8) against phantom (16), mean over 4 images, 2 runs")
    lines = [line for line in text.splitlines() if line.startswith("| better") or line.startswith("| worse")]
    assert lines == ["| better   | 0.90 [0.80, 0.95] | 0.90 [0.80, 0.95] |", "| worse    | 0.60 [0.50, 0.65] | 0.60 [0.50, 0.65] |"]


def scores(kind: str, numbers: range, value: float, memorized: float) -> list[dict[str, object]]:
    """Two generations of each plant, with a score and the verdict."""
    values = {"memorized": memorized, "ld.be.all": value, "area": 0.3}
    return [
        {"plant_id": number, "kind": kind, "seed": seed, "measure": measure, "value": of_measure}
        for number in numbers
        for seed in (0, 1)
        for measure, of_measure in values.items()
    ]


def test_copies_are_detected_among_memorized_local_plants_only() -> None:
    copied, other = scores("local", range(3), 2.0, 1.0), scores("local", range(3, 5), 0.0, 0.0)
    rows = pd.DataFrame([*copied, *other, *scores("phantom", range(5, 9), 1.0, 0.0)])
    text = copies_detected_text({"run": rows}, 2)
    assert "phantom (3 against 4)" in text and "| ld.be.all | 1.00 [" in text  # not 0.60: plants that are not memorized do not count
    assert len(text.splitlines()) == 3  # the area of a region is no detector
    assert copies_detected_text({}, 2) == "" == copies_detected_text({"run": rows[rows["measure"] == "memorized"]}, 2)


def test_interval_figure_is_written_in_both_formats_and_is_reproducible(tmp_path, detection) -> None:
    for turn in ("one", "two"):
        paths = [tmp_path / f"{turn}.{ending}" for ending in ("png", "svg")]
        interval_figure(detection[detection["metric"] == "auc"], "detector", "negative", "AUC", paths, panel="positive")
        assert np.asarray(Image.open(paths[0])).std() > 1 and b"better" in paths[1].read_bytes()
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
