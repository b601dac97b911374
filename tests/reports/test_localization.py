import pandas as pd
import torch

from afterglow.analysis.localization import CollectedMaps, map_rows
from afterglow.reports.localization import gallery_figure, localization_text


def test_localization_text_sorts_maps_by_auc_on_local_plants() -> None:
    rows = []
    for name, local, phantom in (("a", 0.6, 0.5), ("b", 0.8, 0.4)):
        for kind, metric, value in (("phantom", "auc", phantom), ("local", "auc", local), ("local", "iou", local / 2)):
            rows.append({"map": name, "kind": kind, "metric": metric, "value": value, "low": value, "high": value, "plants": 8, "runs": 1})
    text = localization_text(pd.DataFrame(rows), ["kind"])
    head, _, *lines = text[text.index("| map") :].splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["map", "AUC local (8)", "IoU local", "AUC phantom (8)"]
    assert [line.split("|")[1].strip() for line in lines] == ["b", "a"]
    assert "0.80 [0.80, 0.80]" in lines[0] and "0.40 [0.40, 0.40]" in lines[0]
    few = localization_text(pd.DataFrame(rows).replace({"map": {"a": "luminance.inverted"}}), ["kind"], limit=0)
    assert "| luminance.inverted" in few and "| b " not in few  # trivial maps are always there


def test_localization_text_fits_a_terminal_with_long_names_and_many_groups() -> None:
    names = ["end_token.last.first_eos.up_blocks.1.attentions.0", "luminance.inverted"]
    about = {"value": 0.5, "low": 0.4, "high": 0.6, "plants": 16, "runs": 2}
    kinds, metrics = ("local", "phantom", "tint"), ("auc", "permuted_auc", "iou")
    rows = [about | {"map": n, "kind": k, "metric": m} for n in names for k in kinds for m in metrics if k == "local" or m == "auc"]
    chosen = pd.DataFrame([(0, names[0], 0.61)], columns=["seed", "map", "auc"])
    text = localization_text(pd.DataFrame(rows), ["kind"], chosen)
    assert max(map(len, text.splitlines())) <= 100 and text.count("0.50 [0.40, 0.60]") == 2 * 5 and "on other masks, local" in text
    assert "| 0            | end_token.last.first_eos.up_blocks.1.attentions.0 | 0.61 |" in text


def test_gallery_figure_shows_best_median_and_worst(tmp_path) -> None:
    region = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    region[:, :, :4] = True
    soft = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    soft[1] = region[1, 0].float()
    keys = [{"run": "r", "plant_id": n, "kind": "local", "shape": "half", "seed": 0, "caption": "", "memorized": 1.0} for n in range(3)]
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    located = CollectedMaps(keys, [images], [region], {"m": [soft]})
    gallery_figure(located, map_rows(located), ["m"], [tmp_path / "g.svg"])
    assert "best: AUC 1.00" in (tmp_path / "g.svg").read_text() and "worst" in (tmp_path / "g.svg").read_text()
