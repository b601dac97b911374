"""Copies by both rules, of distances whose result is known."""

import pandas as pd

from afterglow.analysis.knockout import count_copies


def test_both_rules_count_the_generations_of_each_plant_below_the_limit():
    distances = {("none", 0): (0.2, 0.4), ("none", 1): (0.9, 1.0), ("pads", 0): (0.3, 1.5)}  # the limit itself is no copy
    rows = [
        {"knockout": name, "kind": "local", "plant_id": plant, "measure": measure, "value": value}
        for measure in ("memorized", "nn_ratio", "calibrated_l2")
        for (name, plant), values in distances.items()
        for value in values
    ]
    found = count_copies(pd.DataFrame(rows)).set_index(["rule", "knockout", "kind", "plant_id"])
    assert found["copies"].to_dict() == {
        ("calibrated_l2", "none", "local", 0): 2,
        ("calibrated_l2", "none", "local", 1): 1,
        ("calibrated_l2", "pads", "local", 0): 1,
        ("nn_ratio", "none", "local", 0): 1,
        ("nn_ratio", "none", "local", 1): 0,
        ("nn_ratio", "pads", "local", 0): 1,
    }
    assert (found["generations"] == 2).all()
